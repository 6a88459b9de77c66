"""Fine-tuning a pretrained network of convolutions on few images: all of it, but the statistics of its batch norms.

Those are of many images; of a batch of few they would only add noise. The first blocks learn, too, though they take
half of a step's time: an exit early in the network is much better for it.
"""

import torch
from torch import Tensor, nn

from pi_dynn.models.chain import ChainNetwork
from pi_dynn.models.macs import count_macs
from pi_dynn.models.pretrained import load_pretrained
from pi_dynn.models.registry import create_model
from pi_dynn.train.transfer import Transfer

EXIT_SHARES = (0.3, 0.42, 0.64, 0.81)  # of the multiply-adds, near which exits stand
EXIT_WEIGHT = 0.3  # of the loss of each exit, beside the last answer's


def start_network(name: str, classes: int, image_size: int) -> tuple[ChainNetwork, dict]:
    """The pretrained network with fresh heads and exits where they pay, and what it started from, for a manifest.

    Raises: ModelError, CheckpointError.
    """
    whole = create_model(name, num_classes=classes, image_size=image_size, exits="all").eval()
    blocks = exits_worth_having(whole)
    form = {"image_size": image_size, "exits": blocks, "exit_heads": whole.best_exit_heads}
    model = create_model(name, num_classes=classes, **form)
    start = load_pretrained(model)
    model.start_exits()
    return stored_as(model, torch.channels_last), start


def stored_as(model: ChainNetwork, memory_format: torch.memory_format) -> ChainNetwork:
    """`model` with its feature maps in this order: channels last is faster to train, on a CPU by a third."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)
    return model


def exits_worth_having(model: ChainNetwork) -> list[int]:
    """Blocks at about EXIT_SHARES of the multiply-adds of `model`, which has exits after all of its blocks."""
    table = count_macs(model, model.image_size)
    shares = [answer.macs / table.total for answer in table.exits[:-1]]
    return sorted({min(range(len(shares)), key=lambda b: abs(shares[b] - wanted)) for wanted in EXIT_SHARES})


class FineTune(Transfer):
    """Transfer with exits, the statistics of the batch norms left as they are."""

    def __init__(self, model: ChainNetwork, held_out: tuple[Tensor, Tensor]) -> None:
        """`held_out` are normalised images (N, 3, H, W) and labels (N,)."""
        super().__init__(model, held_out, exit_weight=EXIT_WEIGHT)

    def train(self, mode: bool = True) -> "FineTune":
        """Training mode for all but the batch norms of feature maps."""
        super().train(mode)
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

"""Fine-tuning a pretrained network of convolutions on few images: all of it, but the statistics of its batch norms.

Those are of many images; of a batch of few they would only add noise. The first blocks learn, too, though they take a
good part of a step's time: an exit early in the network is much better for it.
"""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
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


def join_norms(model: nn.Module) -> None:
    """Let convolutions compute the batch norms behind them, whose statistics have to stay; `part_norms` undoes it.

    What is learned is the same. Norms on their own go over whole feature maps once more, forwards and backwards, which
    is a quarter of a training step.
    """
    for convolution, norm in _normed_convolutions(model):
        convolution.forward = partial(_normed, convolution, norm)
        norm.forward = _as_it_is


def part_norms(model: nn.Module) -> None:
    """Let convolutions and batch norms compute on their own again."""
    for module in model.modules():
        module.__dict__.pop("forward", None)


def _normed_convolutions(model: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions with the norm that the network has next to them."""
    leaves = [module for module in model.modules() if not list(module.children())]
    for convolution, norm in zip(leaves, leaves[1:]):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            yield convolution, norm


def _normed(convolution: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.running_mean if convolution.bias is None else norm.running_mean - convolution.bias
    weight, bias = convolution.weight * scale[:, None, None, None], norm.bias - shift * scale
    c = convolution
    return F.conv2d(x, weight, bias, c.stride, c.padding, c.dilation, c.groups)


def _as_it_is(x: Tensor) -> Tensor:
    return x


class FineTune(Transfer):
    """Transfer with exits, the statistics of the batch norms left as they are."""

    def __init__(self, model: ChainNetwork, held_out: tuple[Tensor, Tensor]) -> None:
        """`held_out` are normalised images (N, 3, H, W) and labels (N,). The norms of `model` are joined."""
        super().__init__(model, held_out, exit_weight=EXIT_WEIGHT)
        join_norms(model)

    def train(self, mode: bool = True) -> "FineTune":
        """Training mode for all but the batch norms of feature maps."""
        super().train(mode)
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

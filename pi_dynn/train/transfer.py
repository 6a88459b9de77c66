"""Transfer: a network learns the classes of a data set from labels, from scratch or from a checkpoint.

With exits in the network all of them learn together, their losses in a weighted sum.

Source: the recipe of GFNet (arXiv 2107.00645); joint losses as in BranchyNet (arXiv 1709.01686).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pi_dynn.train.engine import Stage, accuracy

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def unmixed(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The batch without changes (no mixing)."""
    return x, y


class Transfer(Stage):
    """Cross-entropy on (mixed) batches; evaluated by the accuracy of the last answer."""

    def __init__(
        self,
        model: nn.Module,
        held_out: tuple[Tensor, Tensor],
        *,
        mix: Mix = unmixed,
        label_smoothing: float = 0.1,
        exit_weight: float = 0.0,
    ) -> None:
        """`held_out` are normalised images (N, 3, H, W) and labels (N,).

        An `exit_weight` above 0 trains the exits as well, each with this weight beside the final answer's 1.
        """
        super().__init__(model)
        self.held_out, self.mix, self.label_smoothing = held_out, mix, label_smoothing
        self.exit_weight = exit_weight
        if exit_weight:
            self.watched = "joint_accuracy"
        untrained = [getattr(model, "gates", None)]
        if not exit_weight:
            untrained += [getattr(model, f"intermediate_{kind}", None) for kind in ("heads", "heads_dist", "norms")]
        for part in untrained:
            if part is not None:
                part.requires_grad_(False)  # they get no gradient here, and weight decay must not move them

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.mix(x, y)
        if not self.exit_weight:
            return self.answer_loss(self.model(x), y)
        *exits, final = [self.answer_loss(answer, y) for _, answer, _ in self.model.forward_exits(x)]
        return final + self.exit_weight * sum(exits)

    def answer_loss(self, answer: Tensor, target: Tensor) -> Tensor:
        """Loss of one exit's answer (B, classes); target (B,) or (B, classes)."""
        return F.cross_entropy(answer.float(), target, label_smoothing=self.label_smoothing)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        x, labels = self.held_out
        if not self.exit_weight:
            return {"accuracy": accuracy(model, x, labels, next(model.parameters()).device)}
        right = exit_accuracies(model, x, labels)
        blocks = [*model.exit_blocks, model.depth - 1]
        figures = {f"acc_{block}": value for block, value in zip(blocks, right, strict=True)}
        # All exits count as in the loss, because the last answer may reach its best before they do.
        weights = [self.exit_weight] * (len(right) - 1) + [1.0]
        weighted = sum(weight * value for weight, value in zip(weights, right, strict=True)) / sum(weights)
        return {"joint_accuracy": weighted} | figures


@torch.inference_mode()
def exit_accuracies(model: nn.Module, x: Tensor, labels: Tensor, batch_size: int = 128) -> list[float]:
    """Accuracy of every exit, the last answer included, on normalised images x (N, 3, H, W)."""
    model.eval()
    device = next(model.parameters()).device
    right = 0
    for part, wanted in zip(x.split(batch_size), labels.split(batch_size), strict=True):
        answers = torch.stack([logits.argmax(1).cpu() for _, logits, _ in model.forward_exits(part.to(device))])
        right = right + (answers == wanted).sum(1)
    return (right / len(labels)).tolist()

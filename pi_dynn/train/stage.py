"""What the engine needs to know of a stage of training."""

import torch
from torch import Tensor, nn


class Stage(nn.Module):
    """A network, its loss on a batch, and its figures after an epoch. Subclasses are the stages.

    `forward(*batch)` gives the loss. The engine trains, averages and saves `model`; what else a stage holds, a
    teacher for instance, stays as it is.
    """

    watched = "accuracy"  # the figure that tells the best epoch: higher is better
    some_unused = False  # whether some parameters get no gradient in some steps

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Figures of `model` (the trained weights or their average) on held-out images; in no training mode."""
        raise NotImplementedError

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first batch of an epoch, counted from 0."""

    def end_epoch(self, metrics: dict[str, float]) -> bool:
        """Called with what `evaluate` gave; True ends the training."""
        return False

    def memory(self) -> dict:
        """What the stage must know again when it goes on after an interruption: tensors and plain values."""
        return {}

    def recall(self, memory: dict) -> None:
        """Take up what `memory` gave."""


@torch.inference_mode()
def accuracy(model: nn.Module, x: Tensor, labels: Tensor, device: torch.device, batch_size: int = 128) -> float:
    """Share of normalised images x (N, 3, H, W) whose class `model` names; labels (N,)."""
    was_training = model.training
    model.eval()
    right = 0
    for part, wanted in zip(x.split(batch_size), labels.split(batch_size), strict=True):
        right += int((model(part.to(device)).argmax(1).cpu() == wanted).sum())
    model.train(was_training)
    return right / len(labels)

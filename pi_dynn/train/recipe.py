"""The hyperparameters of training: optimiser, schedule and weight decay."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from pi_dynn.errors import InputError
from pi_dynn.records import Record

OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class Recipe(Record):
    """The hyperparameters of one run of the engine. `batch_size` is that of all processes together.

    `patience` is that of early stopping: the epochs without a better score after which training ends, 0 for never;
    with an `ema_decay` of 0 there is no average of the weights.
    """

    epochs: int
    batch_size: int = 64
    optimizer: str = "adamw"
    lr: float = 1e-3
    final_lr: float = 1e-5
    warmup_steps: int = 0
    weight_decay: float = 0.05
    clip_grad: float = 1.0
    ema_decay: float = 0.0
    ema_warmup: bool = True  # the average follows closely at first, so that short runs have a useful one
    patience: int = 0
    amp: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises: InputError for a number out of range."""
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"optimizer={self.optimizer!r} is not known: give one of {', '.join(OPTIMIZERS)}")
        if self.epochs < 1 or self.batch_size < 1:
            raise InputError(f"epochs={self.epochs}, batch_size={self.batch_size}: both must be at least 1")
        if not self.lr > 0 or not 0 <= self.final_lr <= self.lr:
            raise InputError(f"lr={self.lr}, final_lr={self.final_lr}: give 0 <= final_lr <= lr and lr > 0")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay={self.ema_decay} must lie in 0..1, 1 excluded")


def lr_at(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate of a step: linear warm-up, then a cosine down to `final_lr` at the last of `steps`."""
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    return recipe.final_lr + (recipe.lr - recipe.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay for matrices and filters only: biases, norms and positions stay free."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1 and p.shape[0] != 1]
    chosen = {id(p) for p in decayed}
    free = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of the recipe over what may be trained in `model`."""
    groups = [group for group in decay_groups(model, recipe.weight_decay) if group["params"]]
    if not groups:
        raise InputError(f"{type(model).__name__} has no parameter to train: all are frozen")
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9)
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=fused)


def ema_decay_at(update: int, recipe: Recipe) -> float:
    """Decay of the average at an update, counted from 1."""
    if not recipe.ema_warmup:
        return recipe.ema_decay
    return min(recipe.ema_decay, (1 + update) / (10 + update))

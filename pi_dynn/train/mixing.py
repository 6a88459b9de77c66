"""Mixup and cutmix of a batch."""

import torch
from torch import Tensor

from pi_dynn.data.torchvision_ops import torchvision

v2 = torchvision.transforms.v2


class Mixing:
    """Mixes a share of the batches with mixup or cutmix, half of the time each.

    Draws from the global generator, which the engine sets at the start of every epoch. Labels (N,) become rows
    of probabilities (N, classes) where a batch is mixed.

    Source: arXiv 1710.09412, arXiv 1905.04899.
    """

    def __init__(self, num_classes: int, share: float, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0) -> None:
        self.share = share
        self.ways = (
            v2.MixUp(alpha=mixup_alpha, num_classes=num_classes),
            v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes),
        )

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, 3, H, W), y (N,) or (N, classes) -> the same, mixed or as they were."""
        if len(y) < 2 or float(torch.rand(())) >= self.share:
            return x, y
        return self.ways[int(torch.randint(2, ()))](x, y)

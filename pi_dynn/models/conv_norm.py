"""Convolutions and linear layers with a batch norm, which can be folded after training.

RecNeXt and LSNet are made of them and name them differently in their checkpoints, hence `names`. How they are
folded is in deploy/fuse.py. Shape letters: B batch, C channels, H W feature map.
"""

from collections import OrderedDict

from torch import Tensor, nn


def pooled(x: Tensor) -> Tensor:
    """One vector per sample: the mean over positions of a map (B, C, H, W) or of tokens (B, N, C)."""
    if x.dim() == 4:
        return x.mean((2, 3))
    return x.mean(1) if x.dim() == 3 else x


class ConvNorm(nn.Sequential):
    """Convolution, then batch norm: (B, C, H, W) -> (B, C', H', W'), padded to keep H and W at stride 1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        names: tuple[str, str] = ("conv", "norm"),
    ) -> None:
        padding = kernel_size // 2
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        super().__init__(OrderedDict(zip(names, (conv, nn.BatchNorm2d(out_channels)), strict=True)))


class ResidualDepthwise(nn.Sequential):
    """x + its depthwise 3 x 3 + its depthwise 1 x 1, each with a batch norm: a RepVGG block, (B, C, H, W) kept.

    Source: arXiv 2101.03697.
    """

    def __init__(self, wide: ConvNorm, narrow: ConvNorm, names: tuple[str, str]) -> None:
        super().__init__(OrderedDict(zip(names, (wide, narrow), strict=True)))

    def forward(self, x: Tensor) -> Tensor:
        total = x
        for branch in self:
            total = total + branch(x)
        return total


class NormLinear(nn.Sequential):
    """Mean over positions, batch norm, linear layer: features (B, C, ...) -> logits (B, classes).

    Features may have more than `channels` channels, of which the first count.
    """

    def __init__(self, channels: int, num_classes: int, names: tuple[str, str] = ("norm", "linear")) -> None:
        linear = nn.Linear(channels, num_classes)
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        super().__init__(OrderedDict(zip(names, (nn.BatchNorm1d(channels), linear), strict=True)))
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        x = pooled(x)[:, : self.channels]
        for layer in self:
            x = layer(x)
        return x


class MeanOfHeads(nn.Module):
    """The mean answer of two heads on the same features, one trained on labels, one on a teacher."""

    def __init__(self, head: nn.Module, head_dist: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.head_dist = head_dist

    def forward(self, x: Tensor) -> Tensor:
        return (self.head(x) + self.head_dist(x)) / 2

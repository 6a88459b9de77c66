"""LSNet: convolutions whose small kernels are predicted per position from a large neighbourhood; early exits.

Paper: "LSNet: See Large, Focus Small", arXiv 2503.23135. Parameter names and shapes are those of the published
checkpoints. Blocks are counted through all stages, and an exit after the last block of a stage stands before
the next stage's downsampling. Shape letters: B batch, C channels, H W feature map, N = H*W positions, h heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from pi_dynn.errors import ModelError
from pi_dynn.models.chain import Chain, ChainNetwork, check_pooled_exits
from pi_dynn.models.conv_norm import ConvNorm, MeanOfHeads, NormLinear, ResidualDepthwise, pooled
from pi_dynn.models.registry import register_model
from pi_dynn.models.ska import SmallKernelAggregation

STRIDE = 8  # of the patch embedding
KEY_DIM = 16  # channels of a query, per head
KERNEL_CHANNELS = 8  # channels that share one small kernel
ConvBN = partial(ConvNorm, bias=False, names=("c", "bn"))


@dataclass(frozen=True)
class LSNetSize:
    """The hyperparameters of an LSNet, per stage."""

    dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    heads: int = 4  # of the last stage, the only one with attention


def closed(layer: ConvNorm) -> ConvNorm:
    """`layer` with its norm's scale at zero, so that its residual branch starts as zero."""
    nn.init.zeros_(layer[1].weight)
    return layer


class Residual(nn.Module):
    """x + m(x)."""

    def __init__(self, m: nn.Module) -> None:
        super().__init__()
        self.m = m

    def forward(self, x: Tensor) -> Tensor:
        return x + self.m(x)


class FeedForward(nn.Module):
    """Two 1 x 1 convolutions around a ReLU: (B, C, H, W) kept."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pw1 = ConvBN(dim, 2 * dim)
        self.act = nn.ReLU()
        self.pw2 = closed(ConvBN(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.pw2(self.act(self.pw1(x)))


class SqueezeExcite(nn.Module):
    """Scale every channel by a gate computed from all channels' means: (B, C, H, W) kept.

    Source: arXiv 1709.01507.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, dim // 4, 1)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(dim // 4, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))))


class LargeKernelPerception(nn.Module):
    """The 3 x 3 kernels of every position, from its 7 x 7 neighbourhood: (B, C, H, W) -> (B, C/8, 9, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        half, self.kernels = dim // 2, dim // KERNEL_CHANNELS
        self.cv1 = ConvBN(dim, half)
        self.act = nn.ReLU()
        self.cv2 = ConvBN(half, half, 7, groups=half)
        self.cv3 = ConvBN(half, half)
        self.cv4 = nn.Conv2d(half, 9 * self.kernels, 1)
        self.norm = nn.GroupNorm(self.kernels, 9 * self.kernels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.cv3(self.cv2(self.act(self.cv1(x)))))
        x = self.norm(self.cv4(x))
        B, _, H, W = x.shape
        return x.view(B, self.kernels, 9, H, W)


class LargeSmallConv(nn.Module):
    """x + norm of x aggregated by the predicted kernels: (B, C, H, W) kept."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lkp = LargeKernelPerception(dim)
        self.ska = SmallKernelAggregation()
        self.bn = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.ska(x, self.lkp(x))) + x


class BiasedAttention(nn.Module):
    """Softmax attention of several heads with a bias per pair of positions.

    Shapes: q, k (B, h, D, N), v (B, h, E, N), bias (h, N queries, N keys) -> (B, h, E, N).
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        weights = torch.softmax(q.transpose(-2, -1) @ k * q.shape[2] ** -0.5 + bias, dim=-1)
        return v @ weights.transpose(-2, -1)


def offset_indices(side: int) -> Tensor:
    """For every pair of positions of a `side` x `side` grid, the number of their offset, (N, N) int64."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return (y[:, None] - y).abs() * side + (x[:, None] - x).abs()


class Attention(nn.Module):
    """Attention over a whole `side` x `side` map, with a learned bias per offset: (B, C, side, side) kept."""

    heads: Final[int]

    def __init__(self, dim: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.widths = [heads * KEY_DIM, heads * KEY_DIM, dim]  # queries, keys, values
        self.qkv = ConvBN(dim, sum(self.widths))
        self.proj = nn.Sequential(nn.ReLU(), closed(ConvBN(dim, dim)))
        self.dw = ConvBN(self.widths[0], self.widths[0], 3, groups=self.widths[0])
        self.mix = BiasedAttention()
        self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))
        self.register_buffer("attention_bias_idxs", offset_indices(side))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).split(self.widths, dim=1)
        bias = self.attention_biases[:, self.attention_bias_idxs]  # (h, N, N)
        y = self.mix(self.per_head(self.dw(q)), self.per_head(k), self.per_head(v), bias)
        return self.proj(y.reshape(x.shape))

    def per_head(self, x: Tensor) -> Tensor:
        """(B, h*D, H, W) -> (B, h, D, N)."""
        B, C, H, W = x.shape
        return x.reshape(B, self.heads, C // self.heads, H * W)


class Block(nn.Module):
    """A mixer, squeeze and excitation after a static one, then an MLP: (B, C, H, W) kept."""

    def __init__(self, dim: int, mixer: nn.Module, excite: bool) -> None:
        super().__init__()
        self.mixer = mixer
        self.se = SqueezeExcite(dim) if excite else nn.Identity()
        self.ffn = Residual(FeedForward(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn(self.se(self.mixer(x)))


def build_block(stage: int, index: int, dim: int, heads: int, side: int) -> Block:
    """Even blocks mix with a static convolution, odd ones with predicted kernels; `side` is that of the map."""
    if index % 2 == 0:
        wide, narrow = ConvBN(dim, dim, 3, groups=dim), ConvBN(dim, dim, groups=dim)
        return Block(dim, ResidualDepthwise(wide, narrow, names=("conv", "conv1")), excite=True)
    mixer = Residual(Attention(dim, heads, side)) if stage == 3 else LargeSmallConv(dim)
    return Block(dim, mixer, excite=False)


class LSNet(ChainNetwork):
    """Four stages on ever coarser grids, then one head on the mean features, or two if distilled."""

    # TorchScript: a branch on a Final attribute is compiled away, so the head it names need not exist.
    distilled: Final[bool]

    def __init__(
        self,
        size: LSNetSize,
        *,
        num_classes: int,
        image_size: int,
        exits: Sequence[int] | str | None = None,
        distilled: bool = False,
        exit_heads: str = "cls",
    ) -> None:
        """Raises: ModelError for an image size, exits or heads the network cannot have."""
        super().__init__(num_classes, image_size, sum(size.depths), exits)
        check_pooled_exits(exit_heads)
        if image_size < STRIDE or image_size % STRIDE:
            raise ModelError(f"image_size={image_size}: an LSNet needs a multiple of {STRIDE}")
        self.distilled = distilled
        first = size.dims[0]
        self.patch_embed = nn.Sequential(
            ConvBN(3, first // 4, 3, stride=2),
            nn.ReLU(),
            ConvBN(first // 4, first // 2, 3, stride=2),
            nn.ReLU(),
            ConvBN(first // 2, first, 3, stride=2),
        )
        side = image_size // STRIDE
        for stage, (dim, depth) in enumerate(zip(size.dims, size.depths, strict=True)):
            layers = []
            if stage > 0:
                before, side = size.dims[stage - 1], (side + 1) // 2
                layers = [ConvBN(before, before, 3, stride=2, groups=before), ConvBN(before, dim)]
            layers += [build_block(stage, index, dim, size.heads, side) for index in range(depth)]
            self.add_module(f"blocks{stage + 1}", nn.Sequential(*layers))
        self.head = NormLinear(size.dims[-1], num_classes, names=("bn", "l"))
        if distilled:
            self.head_dist = NormLinear(size.dims[-1], num_classes, names=("bn", "l"))
        self.add_exits([dim for dim, depth in zip(size.dims, size.depths, strict=True) for _ in range(depth)])

    def chain(self) -> Chain:
        blocks, entry = [], []
        for stage in (self.blocks1, self.blocks2, self.blocks3, self.blocks4):
            for layer in stage:
                entry.append(layer)
                if isinstance(layer, Block):
                    blocks.append(entry)
                    entry = []
        return Chain(self.patch_embed, blocks, MeanOfHeads(self.head, self.head_dist) if self.distilled else self.head)

    def features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the mean features (B, C) that the heads read."""
        return pooled(self.blocks4(self.blocks3(self.blocks2(self.blocks1(self.patch_embed(x))))))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        if self.distilled:
            return (self.head(x) + self.head_dist(x)) / 2
        return self.head(x)

    def forward_heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the head for labels and of the head for a teacher, (B, classes) each.

        Raises: ModelError for a network that is not distilled.
        """
        if not self.distilled:
            raise ModelError("forward_heads needs a distilled network: pass distilled=True to create_model")
        x = self.features(x)
        return self.head(x), self.head_dist(x)


SIZES = {
    "lsnet_t": LSNetSize((64, 128, 256, 384), (0, 2, 8, 10)),
    "lsnet_s": LSNetSize((96, 192, 320, 448), (1, 2, 8, 10)),
    "lsnet_b": LSNetSize((128, 256, 384, 512), (4, 6, 8, 10)),
}


def _register(name: str, size: LSNetSize) -> None:
    register_model(name)(lambda **kwargs: LSNet(size, **kwargs))


for _name, _size in SIZES.items():
    _register(_name, _size)

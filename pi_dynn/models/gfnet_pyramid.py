"""GFNet-H: four stages of global filters on ever coarser grids, with early exits.

Paper: "Global Filter Networks for Image Classification", arXiv 2107.00645. Parameter names and shapes are
those of the published checkpoints. The published networks have no exits; here each has a norm of its own,
for the stages differ in width. Exit number k, in the order of the exit blocks, has the keys
`intermediate_norms.{k}.*`, `intermediate_heads.{k}.*` and `gates.{k}.linear.*`. Blocks are counted through
all stages, and an exit after the last block of a stage stands before the next stage's DownLayer.
Shape letters: B batch, N tokens, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pi_dynn.errors import ModelError
from pi_dynn.exits.gate import LearnableUncertaintyGate
from pi_dynn.exits.positions import resolve_exits
from pi_dynn.models.gfnet import Block, PatchEmbed, check_exit_heads, drop_path_rates, init_weights
from pi_dynn.models.registry import register_model

PATCH_SIZE = 4
SMALLEST_IMAGE = 32  # one token is left in the last stage


@dataclass(frozen=True)
class PyramidSize:
    """The hyperparameters of a GFNet-H; dims and depths are per stage."""

    dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    layer_scale: float  # initial value of gamma
    drop_path: float
    mlp_ratio: int = 4


class DownLayer(nn.Module):
    """Merge 2 x 2 neighbouring tokens into one: (B, N, C) -> (B, N/4, C')."""

    def __init__(self, side: int, dim: int, out_dim: int) -> None:
        super().__init__()
        self.side = side  # tokens along one edge before merging
        self.proj = nn.Conv2d(dim, out_dim, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        B, _, C = x.shape
        x = x.transpose(1, 2).reshape(B, C, self.side, self.side)  # (B, C, side, side)
        return self.proj(x).flatten(2).transpose(1, 2)  # (B, N/4, C')


class ScaledBlock(Block):
    """A Block whose branch is scaled per channel by a learned `gamma` that starts close to zero."""

    def __init__(self, dim: int, mlp_ratio: int, grid: tuple[int, int], drop_path: float, layer_scale: float) -> None:
        super().__init__(dim, mlp_ratio, grid, drop_path)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.gamma * self.mlp(self.norm2(self.filter(self.norm1(x)))))


class GFNetPyramid(nn.Module):
    """Hierarchical GFNet: patches of 4 px, then three times a quarter of the tokens and twice the width."""

    # TorchScript: an empty list gets its type from the class body, never from __init__.
    exit_blocks: list[int]

    def __init__(
        self,
        size: PyramidSize,
        *,
        num_classes: int,
        image_size: int,
        exits: Sequence[int] | str | None = None,
        distilled: bool = False,
        exit_heads: str = "cls",
        drop_path: float | None = None,
    ) -> None:
        """Raises: ModelError for an image size or exits the network cannot have, and for `distilled`."""
        super().__init__()
        if distilled:
            raise ModelError("a pyramid GFNet (gfnet_h_*) has no distilled form: use gfnet_ti, xs, s, b or 12_192")
        check_exit_heads(exit_heads, distilled)
        if image_size < SMALLEST_IMAGE or image_size % SMALLEST_IMAGE:
            raise ModelError(f"image_size={image_size}: a pyramid GFNet needs a multiple of {SMALLEST_IMAGE}")
        self.num_classes, self.image_size, self.dim, self.depth = (
            num_classes,
            image_size,
            size.dims[-1],
            sum(size.depths),
        )
        self.distilled, self.exit_heads = False, exit_heads
        self.exit_blocks = resolve_exits(exits, self.depth)

        sides = [image_size // PATCH_SIZE // 2**stage for stage in range(4)]
        self.patch_embed = nn.ModuleList([PatchEmbed(image_size, PATCH_SIZE, size.dims[0])])
        for side, dim, out_dim in zip(sides, size.dims, size.dims[1:], strict=False):
            self.patch_embed.append(DownLayer(side, dim, out_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, sides[0] ** 2, size.dims[0]))
        rates = iter(drop_path_rates(size.drop_path if drop_path is None else drop_path, self.depth))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(ScaledBlock(dim, size.mlp_ratio, (side, side), next(rates), size.layer_scale) for _ in range(depth))
            )
            for dim, depth, side in zip(size.dims, size.depths, sides, strict=True)
        )
        self.norm = nn.LayerNorm(self.dim, eps=1e-6)
        self.head = nn.Linear(self.dim, num_classes)
        if self.exit_blocks:
            widths = [dim for dim, depth in zip(size.dims, size.depths, strict=True) for _ in range(depth)]
            self._add_exits([widths[block] for block in self.exit_blocks])
        self.apply(init_weights)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def _add_exits(self, widths: list[int]) -> None:
        self.intermediate_norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for width in widths)
        self.intermediate_heads = nn.ModuleList(nn.Linear(width, self.num_classes) for width in widths)
        self.gates = nn.ModuleList(LearnableUncertaintyGate() for _ in widths)

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the tokens (B, N, C) that enter the first block."""
        return self.patch_embed[0](x) + self.pos_embed

    def final_logits(self, x: Tensor) -> Tensor:
        """Logits (B, classes) from the tokens (B, N, C) after the last block."""
        return self.head(self.norm(x).mean(1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        # TorchScript: a loop over modules is unrolled, so it starts at stage 0 with its layer left out.
        for stage, (down, blocks) in enumerate(zip(self.patch_embed, self.blocks)):
            if stage > 0:
                x = down(x)
            x = blocks(x)
        return self.final_logits(x)

    def exit_logits(self, x: Tensor, k: int) -> Tensor:
        """Logits (B, classes) of exit number `k` from the tokens (B, N, C) after its block."""
        return self.intermediate_heads[k](self.intermediate_norms[k](x).mean(1))

    def forward_exits(self, x: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """Every exit's (block_index, logits (B, classes), gate (B,)); the final answer comes last, gate 1."""
        x, answers, index = self.embed(x), [], 0
        for stage, blocks in enumerate(self.blocks):
            if stage > 0:
                x = self.patch_embed[stage](x)
            for block in blocks:
                x = block(x)
                if index in self.exit_blocks:
                    k = self.exit_blocks.index(index)
                    logits = self.exit_logits(x, k)
                    answers.append((index, logits, torch.sigmoid(self.gates[k](logits))))
                index += 1
        logits = self.final_logits(x)
        return [*answers, (self.depth - 1, logits, torch.ones_like(logits[:, 0]))]


SIZES = {
    "gfnet_h_ti": PyramidSize((64, 128, 256, 512), (3, 3, 10, 3), layer_scale=1e-3, drop_path=0.1),
    "gfnet_h_s": PyramidSize((96, 192, 384, 768), (3, 3, 10, 3), layer_scale=1e-5, drop_path=0.2),
    "gfnet_h_b": PyramidSize((96, 192, 384, 768), (3, 3, 27, 3), layer_scale=1e-6, drop_path=0.4),
}


def _register(name: str, size: PyramidSize) -> None:
    register_model(name)(lambda **kwargs: GFNetPyramid(size, **kwargs))


for _name, _size in SIZES.items():
    _register(_name, _size)

"""GFNet: global filters in the frequency domain instead of attention, with early exits.

Paper: "Global Filter Networks for Image Classification", arXiv 2107.00645; gates after JEI-DNN, arXiv
2310.09163; class and distillation tokens after DeiT, arXiv 2012.12877. Parameter names and shapes are
those of the published checkpoints. Shape letters: B batch, N tokens, C channels, a x b filter grid.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from pi_dynn.errors import ModelError
from pi_dynn.exits.gate import LearnableUncertaintyGate
from pi_dynn.exits.positions import resolve_exits
from pi_dynn.models.registry import register_model

PREFIX_TOKENS = 2  # class and distillation token of a distilled network


@dataclass(frozen=True)
class GFNetSize:
    """The hyperparameters of an isotropic GFNet; after `pool_after` blocks, if given, each 2 x 2 tokens become one."""

    dim: int
    depth: int
    drop_path: float = 0.0
    patch_size: int = 16
    mlp_ratio: int = 4
    pool_after: int | None = None


def filter_grid(tokens: int, distilled: bool) -> tuple[int, int]:
    """Grid (a, b) that the filter lays `tokens` tokens out on.

    A plain network has one token per patch of a square image. Two more make a distilled one's count
    no square, and its published grids have the largest prime factor as a: 66 = 11 x 6, 258 = 43 x 6.
    """
    if not distilled:
        side = int(tokens**0.5)
        return side, side
    largest, rest, factor = 1, tokens, 2
    while factor * factor <= rest:
        while rest % factor == 0:
            largest, rest = factor, rest // factor
        factor += 1
    largest = max(largest, rest)
    return largest, tokens // largest


class PatchEmbed(nn.Module):
    """Image to tokens: (B, 3, H, W) -> (B, N, C), row by row."""

    def __init__(self, image_size: int, patch_size: int, dim: int) -> None:
        super().__init__()
        if image_size < patch_size or image_size % patch_size:
            raise ModelError(f"image_size={image_size} is no multiple of the patch size {patch_size}")
        self.image_size = image_size
        self.num_patches = (image_size // patch_size) ** 2
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[2] != self.image_size or x.shape[3] != self.image_size:
            raise ValueError(f"expected images (B, 3, {self.image_size}, {self.image_size}), got {list(x.shape)}")
        return self.proj(x).flatten(2).transpose(1, 2)  # (B, N, C)


class GlobalFilter(nn.Module):
    """Multiply the tokens' 2-D spectrum with a learned one: a circular convolution over the whole grid."""

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.a, self.b = grid
        self.complex_weight = nn.Parameter(torch.randn(self.a, self.b // 2 + 1, dim, 2) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        # Half precision has no complex FFT of odd lengths: the filter always runs in float32.
        x = x.float().view(B, self.a, self.b, C)
        spectrum = torch.fft.rfft2(x, dim=(1, 2), norm="ortho")  # (B, a, b//2+1, C)
        spectrum = spectrum * torch.view_as_complex(self.complex_weight)
        x = torch.fft.irfft2(spectrum, s=(self.a, self.b), dim=(1, 2), norm="ortho")
        return x.reshape(B, N, C)


class Mlp(nn.Module):
    """Two linear layers around an exact GELU: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim * ratio)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(dim * ratio, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def drop_path_layer(p: float) -> nn.Module:
    """Drop a residual branch (B, ...) per sample with probability `p` in training; nothing for 0.

    Source: arXiv 1603.09382.
    """
    if p == 0.0:
        return nn.Identity()
    from pi_dynn.data.torchvision_ops import torchvision  # slow to import, so only if it is needed

    return torchvision.ops.StochasticDepth(p, "row")


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Drop probability of every block, rising evenly from 0 to `last`."""
    return [last * index / max(1, depth - 1) for index in range(depth)]


class Block(nn.Module):
    """Filter, then MLP, under ONE residual: x + mlp(norm2(filter(norm1(x))))."""

    def __init__(self, dim: int, mlp_ratio: int, grid: tuple[int, int], drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.filter = GlobalFilter(dim, grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, mlp_ratio)
        self.drop_path = drop_path_layer(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp(self.norm2(self.filter(self.norm1(x)))))


class TokenPool(nn.Module):
    """The mean of each 2 x 2 neighbouring tokens of a grid (a, b): (B, a * b, C) -> (B, a * b / 4, C)."""

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.a, self.b = grid

    def forward(self, x: Tensor) -> Tensor:
        B, _, C = x.shape
        return x.view(B, self.a // 2, 2, self.b // 2, 2, C).mean((2, 4)).flatten(1, 2)


class PoolingBlock(Block):
    """A Block and then a TokenPool: what follows, an exit's head too, sees a quarter of the tokens."""

    def __init__(self, dim: int, mlp_ratio: int, grid: tuple[int, int], drop_path: float) -> None:
        super().__init__(dim, mlp_ratio, grid, drop_path)
        self.pool = TokenPool(grid)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x + self.drop_path(self.mlp(self.norm2(self.filter(self.norm1(x))))))


def init_weights(module: nn.Module) -> None:
    """Linear layers from a truncated normal of 0.02, as published; the rest keeps torch's defaults."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def check_exit_heads(exit_heads: str, distilled: bool) -> None:
    """Raise ModelError unless the network can have exits that read `exit_heads`."""
    if exit_heads not in ("cls", "cls+dist"):
        raise ModelError(f'exit_heads={exit_heads!r} is not known: give "cls" or "cls+dist"')
    if exit_heads == "cls+dist" and not distilled:
        raise ModelError('exit_heads="cls+dist" needs a distilled network: pass distilled=True')


class GFNet(nn.Module):
    """Isotropic GFNet: all blocks work on the same tokens.

    Plain networks average the tokens before a head. Distilled ones carry a class and a distillation
    token in front of the patches; the final answer averages a head on each, and an exit reads the class
    token ("cls") or both ("cls+dist"). All exits share the final norm.
    """

    # TorchScript: a branch on a Final attribute is compiled away, so the heads it names need not exist.
    distilled: Final[bool]
    exit_reads_dist: Final[bool]
    # TorchScript: an empty list gets its type from the class body, never from __init__.
    exit_blocks: list[int]

    def __init__(
        self,
        size: GFNetSize,
        *,
        num_classes: int,
        image_size: int,
        exits: Sequence[int] | str | None = None,
        distilled: bool = False,
        exit_heads: str = "cls",
        drop_path: float | None = None,
        grid: tuple[int, int] | None = None,
    ) -> None:
        """`grid` overrides the filter grid (a, b) of a distilled network whose checkpoint has another one.

        Raises: ModelError for an image size, exits, heads or a grid the network cannot have.
        """
        super().__init__()
        check_exit_heads(exit_heads, distilled)
        self.num_classes, self.image_size, self.dim, self.depth = num_classes, image_size, size.dim, size.depth
        self.distilled, self.exit_heads = distilled, exit_heads
        self.exit_reads_dist = exit_heads == "cls+dist"
        self.exit_blocks = resolve_exits(exits, size.depth)

        self.patch_embed = PatchEmbed(image_size, size.patch_size, size.dim)
        tokens = self.patch_embed.num_patches + (PREFIX_TOKENS if distilled else 0)
        self.grid = filter_grid(tokens, distilled) if grid is None else (int(grid[0]), int(grid[1]))
        if self.grid[0] * self.grid[1] != tokens:
            raise ModelError(f"grid={grid!r} does not hold the {tokens} tokens of a {image_size} px image")
        if distilled:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
            self.dist_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, size.dim))
        self.blocks = nn.ModuleList(self._blocks(size, size.drop_path if drop_path is None else drop_path))
        self.norm = nn.LayerNorm(size.dim, eps=1e-6)
        self.head = nn.Linear(size.dim, num_classes)
        if distilled:
            self.head_dist = nn.Linear(size.dim, num_classes)
        if self.exit_blocks:
            self.intermediate_heads = self._heads(size.dim)
            self.gates = nn.ModuleList(LearnableUncertaintyGate() for _ in self.exit_blocks)
        if self.exit_reads_dist:
            self.intermediate_heads_dist = self._heads(size.dim)
        self.apply(init_weights)
        for name in ("pos_embed", "cls_token", "dist_token"):
            if hasattr(self, name):
                nn.init.trunc_normal_(getattr(self, name), std=0.02)

    def _blocks(self, size: GFNetSize, drop_path: float) -> Iterator[Block]:
        grid, rates = self.grid, drop_path_rates(drop_path, size.depth)
        if size.pool_after is not None and (self.distilled or any(side % 2 for side in grid)):
            raise ModelError(
                f"tokens in a grid {grid} cannot be pooled: give a plain network an even number of patches"
            )
        for index, rate in enumerate(rates):
            pools = index + 1 == size.pool_after
            yield (PoolingBlock if pools else Block)(size.dim, size.mlp_ratio, grid, rate)
            grid = (grid[0] // 2, grid[1] // 2) if pools else grid

    def _heads(self, dim: int) -> nn.ModuleList:
        return nn.ModuleList(nn.Linear(dim, self.num_classes) for _ in self.exit_blocks)

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the tokens (B, N, C) that enter the first block."""
        x = self.patch_embed(x)
        if self.distilled:
            B = x.shape[0]
            x = torch.cat((self.cls_token.expand(B, -1, -1), self.dist_token.expand(B, -1, -1), x), dim=1)
        return x + self.pos_embed

    def forward_heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the class and of the distillation head, (B, classes) each, for a distillation loss.

        Raises: ModelError for a network that is not distilled.
        """
        if not self.distilled:
            raise ModelError("forward_heads needs a distilled network: pass distilled=True to create_model")
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0]), self.head_dist(x[:, 1])

    def final_logits(self, x: Tensor) -> Tensor:
        """Logits (B, classes) from the tokens (B, N, C) after the last block."""
        x = self.norm(x)
        if self.distilled:
            return (self.head(x[:, 0]) + self.head_dist(x[:, 1])) / 2
        return self.head(x.mean(1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.final_logits(x)

    def exit_logits(self, x: Tensor, k: int) -> Tensor:
        """Logits (B, classes) of exit number `k` from the tokens (B, N, C) after its block."""
        x = self.norm(x)
        if not self.distilled:
            return self.intermediate_heads[k](x.mean(1))
        logits = self.intermediate_heads[k](x[:, 0])
        if self.exit_reads_dist:
            logits = (logits + self.intermediate_heads_dist[k](x[:, 1])) / 2
        return logits

    def forward_exits(self, x: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """Every exit's (block_index, logits (B, classes), gate (B,)); the final answer comes last, gate 1."""
        x, answers = self.embed(x), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.exit_blocks:
                k = self.exit_blocks.index(index)
                logits = self.exit_logits(x, k)
                answers.append((index, logits, torch.sigmoid(self.gates[k](logits))))
        logits = self.final_logits(x)
        return [*answers, (self.depth - 1, logits, torch.ones_like(logits[:, 0]))]


SIZES = {
    "gfnet_12_192": GFNetSize(192, 12),
    "gfnet_12_192_narrow": GFNetSize(192, 12, mlp_ratio=2),  # this and the next are not published
    "gfnet_12_192_pooled": GFNetSize(192, 12, pool_after=4),
    "gfnet_ti": GFNetSize(256, 12),
    "gfnet_xs": GFNetSize(384, 12),
    "gfnet_s": GFNetSize(384, 19, drop_path=0.15),
    "gfnet_b": GFNetSize(512, 19, drop_path=0.25),
}


def _register(name: str, size: GFNetSize) -> None:
    alias = "gfnet_12_384" if name == "gfnet_xs" else None
    register_model(name, alias=alias)(lambda **kwargs: GFNet(size, **kwargs))


for _name, _size in SIZES.items():
    _register(_name, _size)

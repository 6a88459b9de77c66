"""A plain GFNet becomes a distilled one: two tokens in front, and filters moved to the grid that holds them.

A filter is a circular convolution over its grid. On the 8 x 8 grid of a plain network at 128 px two neighbouring
patches are always one step apart; on the published 11 x 6 grid of the 66 tokens, filled row by row, the same two
patches lie at displacements that depend on where they are. No filter there does exactly what the plain one did;
the nearest in least squares takes, for each displacement, the mean of the wanted weights over all pairs of tokens
that far apart.

Shape letters: a x b filter grid, C channels, T tokens.
"""

from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor

from pi_dynn.models.gfnet import PREFIX_TOKENS, filter_grid


def kernel_of(weight: Tensor, b: int) -> Tensor:
    """The circular kernel (a, b, C) of a filter's spectrum (a, b//2+1, C, 2)."""
    spectrum = torch.view_as_complex(weight.float().contiguous())
    return torch.fft.irfft2(spectrum, s=(weight.shape[0], b), dim=(0, 1))


def spectrum_of(kernel: Tensor) -> Tensor:
    """The spectrum (a, b//2+1, C, 2) of a circular kernel (a, b, C)."""
    return torch.view_as_real(torch.fft.rfft2(kernel, dim=(0, 1))).contiguous()


def token_map(kernel: Tensor) -> Tensor:
    """What a kernel (side, side, C) on patches does with prefix tokens in front: weights (T, T, C), out by in.

    A prefix token sees what a mean over the patches would give it and is not seen by them.
    """
    side, C = kernel.shape[0], kernel.shape[2]
    patch = torch.arange(side * side)
    rows, columns = patch // side, patch % side
    down, right = (rows[:, None] - rows) % side, (columns[:, None] - columns) % side
    T = side * side + PREFIX_TOKENS
    weights = torch.zeros(T, T, C)
    weights[PREFIX_TOKENS:, PREFIX_TOKENS:] = kernel[down, right]
    weights[:PREFIX_TOKENS, PREFIX_TOKENS:] = kernel.sum((0, 1)) / (side * side)
    return weights


def nearest_kernel(weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """The circular kernel (a, b, C) on `grid` nearest to a linear map of tokens (T, T, C), in least squares."""
    a, b = grid
    token = torch.arange(a * b)
    rows, columns = token // b, token % b
    down, right = (rows[:, None] - rows) % a, (columns[:, None] - columns) % b
    kernel = torch.zeros(a * b, weights.shape[2])
    kernel.index_add_(0, (down * b + right).flatten(), weights.flatten(0, 1))
    return (kernel / (a * b)).reshape(a, b, -1)  # each displacement has a * b pairs


def distilled_from_plain(state: Mapping[str, Tensor], grid: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """Weights of the distilled network nearest to a plain one of the same image size; both heads start alike."""
    patches = state["pos_embed"].shape[1]
    grid = filter_grid(patches + PREFIX_TOKENS, True) if grid is None else grid
    side = isqrt(patches)
    grown = {}
    for key, value in state.items():
        if key.endswith("complex_weight"):
            value = spectrum_of(nearest_kernel(token_map(kernel_of(value, side)), grid))
        elif key == "pos_embed":
            mean = value.mean(1, keepdim=True).expand(-1, PREFIX_TOKENS, -1)
            value = torch.cat([mean, value], 1)
        grown[key] = value
    tokens = torch.empty(2, 1, 1, state["pos_embed"].shape[2]).normal_(std=0.02)
    grown |= {"cls_token": tokens[0], "dist_token": tokens[1]}
    return grown | {key.replace("head.", "head_dist."): state[key].clone() for key in ("head.weight", "head.bias")}

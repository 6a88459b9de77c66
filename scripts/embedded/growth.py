"""A plain GFNet becomes a distilled one: two tokens in front, and filters moved to the grid that holds them.

A filter is a circular convolution over its grid. On the 8 x 8 grid of a plain network at 128 px two neighbouring
patches are always one step apart; on the published 11 x 6 grid of the 66 tokens, filled row by row, the same two
patches lie at displacements that depend on where they are. No filter there does exactly what the plain one did;
the nearest in least squares takes, for each displacement, the mean of the wanted weights over all pairs of tokens
that far apart. Images tell what the filters really see, and so which errors matter.

Shape letters: a x b filter grid, C channels, T tokens.
"""

from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor

from pi_dynn.models.gfnet import PREFIX_TOKENS, GFNet, filter_grid

PREFIX_WEIGHT = 2.0  # more of it takes from the patches what the prefix tokens gain
RIDGE = 1e-3  # of the mean second moment


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


def sources(grid: tuple[int, int]) -> Tensor:
    """Which token every token sees at each displacement: (displacements, T), rows by rows as the tokens are."""
    a, b = grid
    rows, columns = torch.arange(a * b) // b, torch.arange(a * b) % b
    return (rows - rows[:, None]) % a * b + (columns - columns[:, None]) % b


def nearest_kernel(weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """The circular kernel (a, b, C) on `grid` nearest to a linear map of tokens (T, T, C), in least squares."""
    token = torch.arange(len(weights))
    return weights[token, sources(grid)].mean(1).reshape(*grid, -1)  # each displacement has T pairs


def fitted_kernel(seen: Tensor, wanted: Tensor, grid: tuple[int, int]) -> Tensor:
    """The circular kernel (a, b, C) that makes of tokens `seen` (B, T, C) most nearly `wanted` (B, T, C).

    In least squares over tokens and images; an error of a prefix token counts PREFIX_WEIGHT times.
    """
    T, C = seen.shape[1:]
    seen, wanted = seen.permute(2, 1, 0), wanted.permute(2, 1, 0)  # (C, T, B)
    moments, answers = seen @ seen.mT, wanted @ seen.mT  # (C, T, T), out by in
    left, right = torch.zeros(C, T, T), torch.zeros(C, T)
    for token, source in enumerate(sources(grid).T):
        counts = PREFIX_WEIGHT if token < PREFIX_TOKENS else 1.0
        left += counts * moments[:, source][:, :, source]
        right += counts * answers[:, token, source]
    left += RIDGE * left.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(T)
    return torch.linalg.solve(left, right).T.reshape(*grid, C)


@torch.inference_mode()
def fit_filters(distilled: GFNet, plain: GFNet, x: Tensor) -> None:
    """Fit one filter after the other of a grown network to what those of the plain one make of images (B, 3, R, R).

    Every filter is fitted to the tokens that the blocks before it, fitted already, leave it; a prefix token is to
    have the mean of the patches. Takes about two minutes for 3,000 images on two cores.
    """
    own, wanted = distilled.embed(x), plain.embed(x)
    for block, model in zip(distilled.blocks, plain.blocks):
        answer = model.filter(model.norm1(wanted))
        answer = torch.cat([answer.mean(1, keepdim=True).expand(-1, PREFIX_TOKENS, -1), answer], 1)
        kernel = fitted_kernel(block.norm1(own), answer, distilled.grid)
        block.filter.complex_weight.copy_(spectrum_of(kernel))
        own, wanted = block(own), model(wanted)


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

"""Affine parts of norms folded into what follows them, exactly."""

import torch
from torch import Tensor, nn


def fold_norm_into_linear(norm: nn.LayerNorm, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out) such that W' n + b' = W (gamma * n + beta) + b."""
    gamma, beta = norm.weight.detach().double(), norm.bias.detach().double()
    weight = linear.weight.detach().double()
    return (weight * gamma).float(), (linear.bias.detach().double() + weight @ beta).float()


class BareNorm(nn.Module):
    """A LayerNorm without its affine part: (..., C) -> (..., C)."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.shape: list[int] = list(norm.normalized_shape)
        self.eps: float = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.shape, None, None, self.eps)

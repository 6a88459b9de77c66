"""Attention without softmax: a positive kernel of queries and keys, cheap in either order of the products.

Source: RecNeXt (arXiv 2412.19628). Shape letters: B batch, C channels, D channels of a query, N positions.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pi_dynn.errors import ModelError
from pi_dynn.models.conv_norm import ConvNorm

KERNELS = ("elu", "relu", "softplus", "softmax")
SOFTPLUS_BETA = 3.5  # as published: the closest to softmax of the three
EPSILON = 1e-6


class KernelAttention(nn.Module):
    """Every position's mean of the values, weighted by kernel(query) . kernel(key) over the mean weight.

    Dividing by the mean, not by the sum, leaves a factor N, which the published form takes back as two
    factors of N^-1/2. Shapes: q, k (B, D, N), v (B, C, N) -> (B, C, N).
    """

    # TorchScript: module constants are out of reach in a method, Final attributes are not.
    kernel: Final[str]
    beta: Final[float]
    epsilon: Final[float]

    def __init__(self, kernel: str) -> None:
        super().__init__()
        self.kernel, self.beta, self.epsilon = kernel, SOFTPLUS_BETA, EPSILON

    def positive(self, x: Tensor) -> Tensor:
        """The kernel's feature map, elementwise."""
        if self.kernel == "relu":
            return F.relu(x)
        if self.kernel == "softplus":
            return F.softplus(x, beta=self.beta)
        return F.elu(x) + 1.0

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = self.positive(q), self.positive(k)
        N = v.shape[2]
        if quadratic_is_cheaper(q.shape[1], v.shape[1], N):
            weights = k.transpose(1, 2) @ q  # (B, N keys, N queries)
            return v @ (weights / ((weights.mean(1, keepdim=True) + self.epsilon) * N))
        mean_weight = k.mean(2).unsqueeze(1) @ q  # (B, 1, N)
        return (v @ k.transpose(1, 2) / N) @ q / (mean_weight + self.epsilon)


def quadratic_is_cheaper(D: int, C: int, N: int) -> bool:
    """Whether all N x N weights cost fewer multiply-adds than the C x D product of values and keys."""
    return N * (D + C) < 2 * D * C


class SoftmaxAttention(nn.Module):
    """Scaled dot-product attention of one head: q, k (B, D, N), v (B, C, N) -> (B, C, N)."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.softmax(k.transpose(1, 2) @ q * q.shape[1] ** -0.5, dim=1)  # (B, N keys, N queries)
        return v @ weights


class LinearAttention(nn.Module):
    """Attention of a feature map to itself plus a depthwise 3 x 3 for position: (B, C, H, W) kept.

    Values are the input itself. `grouped`: queries come from the first half of the channels, keys from the
    second, both C wide; else both are C/2 wide and read all channels. Without `norm` the convolutions are bare.
    """

    def __init__(self, dim: int, grouped: bool, kernel: str = "elu", norm: bool = True) -> None:
        """Raises: ModelError for a kernel that is not known."""
        super().__init__()
        if kernel not in KERNELS:
            raise ModelError(f"kernel={kernel!r} is not known: choose from {', '.join(KERNELS)}")
        width, groups = (2 * dim, 2) if grouped else (dim, 1)
        if norm:
            self.qk = ConvNorm(dim, width, groups=groups)
            self.pe = ConvNorm(dim, dim, 3, groups=dim)
        else:
            self.qk = nn.Conv2d(dim, width, 1, groups=groups)
            self.pe = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.mix = SoftmaxAttention() if kernel == "softmax" else KernelAttention(kernel)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.qk(x).flatten(2).chunk(2, dim=1)  # (B, D, N) each
        return self.mix(q, k, x.flatten(2)).view(x.shape) + self.pe(x)

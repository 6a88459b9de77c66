"""Affine parts of norms folded into what follows them, exactly."""

import torch
from torch import Tensor, nn


def fold_norm_into_linear(norm: nn.LayerNorm, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out) such that W' n + b' = W (gamma * n + beta) + b."""
    gamma, beta = norm.weight.detach().double(), norm.bias.detach().double()
    weight = linear.weight.detach().double()
    return (weight * gamma).float(), (linear.bias.detach().double() + weight @ beta).float()


class BareNorm(nn.Module):
    """A LayerNorm without its affine part: (..., C) -> (..., C).

    torch gets a scale of one and a shift of zero all the same: without them its kernel leaves its vector loop and
    takes twice the instructions on ARM.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.shape: list[int] = list(norm.normalized_shape)
        self.eps: float = norm.eps
        self.scale: float = 1.0
        self.register_buffer("one", torch.ones(self.shape))
        self.register_buffer("zero", torch.zeros(self.shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.shape, self.one, self.zero, self.eps)


class CentredNorm(nn.Module):
    """A LayerNorm without its affine part, of tokens whose channels have the mean zero: (..., C) -> (..., C).

    Then the variance is the mean square, half the instructions of BareNorm. The result is that of the norm over
    sqrt(C), so the folding code multiplies by `scale`.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        channels = norm.normalized_shape[0]
        self.scale: float = channels**0.5
        self.register_buffer("least", torch.tensor(norm.eps * channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.inverse(x)

    def inverse(self, x: Tensor) -> Tensor:
        """The factor of each token: (..., C) -> (..., 1)."""
        norm = torch.linalg.vector_norm(x, 2.0, [-1], True)
        return torch.addcmul(self.least, norm, norm).rsqrt_()


def centred(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out) with the mean of their outputs removed.

    A norm removes the mean of its input, so tokens that only norms read may be written without it.
    """
    return (weight.double() - weight.double().mean(0)).float(), (bias.double() - bias.double().mean()).float()

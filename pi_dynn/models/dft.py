"""The 2-D real Fourier transform as real matrices.

The global filter needs no complex numbers: `irfft2(rfft2(x) * W)` is two matrix products around four
real multiplications. On a CPU that trains faster than the FFT, and it can be scripted and exported.
"""

import torch
from torch import Tensor, nn

from pi_dynn.models.gfnet import Block, GlobalFilter


def rfft2_matrices(a: int, b: int) -> tuple[Tensor, Tensor]:
    """Orthonormal `rfft2` of an a x b grid as (2F, N), `irfft2` as (N, 2F), float64; F = a*(b//2+1), N = a*b.

    Spectra are stacked: F real parts, then F imaginary parts, both row by row.
    """
    N, w = a * b, b // 2 + 1
    F = a * w
    unit = torch.eye(N, dtype=torch.float64).view(N, a, b)
    spectrum = torch.fft.rfft2(unit, norm="ortho").reshape(N, F)
    forward = torch.cat((spectrum.real, spectrum.imag), dim=1).T
    unit = torch.eye(F, dtype=torch.complex128).view(F, a, w)
    inverse = torch.cat([torch.fft.irfft2(part, s=(a, b), norm="ortho").reshape(F, N) for part in (unit, 1j * unit)]).T
    return forward.contiguous(), inverse.contiguous()


class MatrixFilter(nn.Module):
    """A GlobalFilter with the same parameter, computed by matrix products: (B, N, C) -> (B, N, C).

    `matrices` are those of `rfft2_matrices` in float32, for several filters of one grid to share.
    """

    def __init__(self, source: GlobalFilter, matrices: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.a, self.b = source.a, source.b
        self.complex_weight = source.complex_weight
        if matrices is None:
            forward, inverse = rfft2_matrices(self.a, self.b)
            matrices = forward.float(), inverse.float()
        self.register_buffer("dft", matrices[0], persistent=False)  # (2F, N)
        self.register_buffer("inverse_dft", matrices[1], persistent=False)  # (N, 2F)

    def forward(self, x: Tensor) -> Tensor:
        re, im = (self.dft @ x.float()).chunk(2, dim=1)  # (B, F, C) each
        w_re, w_im = self.complex_weight.flatten(0, 1).unbind(-1)  # (F, C) each
        return self.inverse_dft @ torch.cat((re * w_re - im * w_im, re * w_im + im * w_re), dim=1)


def filters_as_matrices(model: nn.Module) -> nn.Module:
    """Swap every global filter of `model`, in place, for the matrix form; keys and numbers stay."""
    of_grid: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for module in model.modules():
        if isinstance(module, Block) and isinstance(module.filter, GlobalFilter):
            grid = module.filter.a, module.filter.b
            module.filter = MatrixFilter(module.filter, of_grid.get(grid))
            of_grid[grid] = module.filter.dft, module.filter.inverse_dft
    return model

"""The global filter as real matrix products, with the norm before it folded in.

`irfft2(rfft2(x) * W)` over an a x b grid is linear and real, so it needs neither an FFT nor complex
numbers, and the affine part of the LayerNorm in front of it folds into the spectrum exactly: gamma
scales every frequency of a channel, beta only adds its own mean frequency, a constant per channel.

Two forms, of which `deploy_filter` takes the cheaper one for the grid:
- `FullFilter` treats the grid as one axis: two N x N products. Fewest operations, best on small grids.
- `SeparableFilter` transforms rows, then columns: fewer multiply-adds, more operations.

Shape letters: B batch, N = a*b tokens, C channels, P pairs of real coefficients, K = a//2+1.
"""

import torch
from torch import Tensor, nn

from pi_dynn.models.gfnet import GlobalFilter

# What starting one more small operation costs, in multiply-adds of a matrix product: about 5 us at
# 15 GMAC/s on one x86 core, and of the same order on a Cortex-A72, where both are slower.
OPERATION_COST_MACS = 80_000


def deploy_filter(source: GlobalFilter, norm: nn.LayerNorm) -> nn.Module:
    """The cheaper real form of `source` applied after the affine part of `norm`: (B, N, C) -> (B, N, C)."""
    a, b, C = source.a, source.b, source.complex_weight.shape[2]
    full = full_macs(a, b, C)
    separable = separable_macs(a, b, C) + 3 * OPERATION_COST_MACS
    return FullFilter(source, norm) if full <= separable else SeparableFilter(source, norm)


def full_macs(a: int, b: int, C: int) -> int:
    """Multiply-adds of the two products of a FullFilter."""
    return 2 * (a * b) ** 2 * C


def separable_macs(a: int, b: int, C: int) -> int:
    """Multiply-adds of the four products of a SeparableFilter."""
    K = a // 2 + 1
    return 2 * (2 * K * a * b + K * (2 * b) ** 2) * C


def effective_spectrum(source: GlobalFilter) -> Tensor:
    """The spectrum (a, b, C) the filter acts with, complex128.

    Only the Hermitian part of the learned half spectrum has an effect on real tokens: it is the spectrum
    of the real kernel `irfft2(W)`.
    """
    weight = torch.view_as_complex(source.complex_weight.detach().double())
    kernel = torch.fft.irfft2(weight, s=(source.a, source.b), dim=(0, 1))
    return torch.fft.fft2(kernel, dim=(0, 1))


def real_fourier_basis(a: int, b: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """An orthonormal real Fourier basis of the a x b grid as rows (2P, N), and the frequencies of its pairs.

    Row p holds the cosine and row P + p the sine of pair p. Frequencies that are their own mirror image
    (mean and Nyquist) have no sine; two of them share one pair, listed as (f, f'), with f != f'; an odd one
    out is paired with a row of zeros, listed as (f, -1).
    """
    N = a * b
    unit = torch.eye(N, dtype=torch.float64).view(N, a, b)
    spectrum = torch.fft.fft2(unit, norm="ortho").reshape(N, N).T  # (frequency, token)
    mirror = [(-(f // b) % a) * b + (-(f % b) % b) for f in range(N)]
    lone = [f for f in range(N) if mirror[f] == f]
    rows: list[tuple[Tensor, Tensor]] = []
    pairs: list[tuple[int, int]] = []
    for first in range(0, len(lone), 2):
        second = lone[first + 1] if first + 1 < len(lone) else -1
        other = spectrum[second].real if second >= 0 else torch.zeros(N, dtype=torch.float64)
        rows.append((spectrum[lone[first]].real, other))
        pairs.append((lone[first], second))
    for f in range(N):
        if f < mirror[f]:
            rows.append((spectrum[f].real * 2**0.5, spectrum[f].imag * 2**0.5))
            pairs.append((f, f))
    cosine, sine = zip(*rows, strict=True)
    return torch.stack((*cosine, *sine)), pairs


class FullFilter(nn.Module):
    """All tokens as one axis: to the real Fourier basis, turn and scale each pair, back.

    In that basis the filter maps a pair (c, s) to (c*U0 + s*V0, s*U1 + c*V1): three elementwise operations
    between two products with an orthonormal matrix and its transpose.
    """

    def __init__(self, source: GlobalFilter, norm: nn.LayerNorm) -> None:
        super().__init__()
        a, b = source.a, source.b
        basis, pairs = real_fourier_basis(a, b)
        spectrum = effective_spectrum(source)
        gamma, beta = norm.weight.detach().double(), norm.bias.detach().double()
        flat = spectrum.reshape(a * b, -1)  # (N, C)
        U, V = torch.zeros(2, 2, len(pairs), flat.shape[1], dtype=torch.float64)  # (2, P, C) each
        for p, (first, second) in enumerate(pairs):
            if first != second:
                U[0, p] = flat[first].real
                U[1, p] = flat[second].real if second >= 0 else 0.0
            else:
                U[0, p] = U[1, p] = flat[first].real
                V[0, p], V[1, p] = -flat[first].imag, flat[first].imag
        self.pairs = len(pairs)
        self.register_buffer("analysis", basis.float().contiguous())  # (2P, N)
        self.register_buffer("synthesis", basis.T.float().contiguous())  # (N, 2P)
        self.register_buffer("scale", (U * gamma).float())
        self.register_buffer("turn", (V * gamma).float())
        self.register_buffer("constant", (spectrum[0, 0].real * beta).float())  # (C,): beta times the mean gain

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        if B == 1:  # a plain product starts faster than a batch of one
            y = torch.mm(self.analysis, x[0]).view(1, 2, self.pairs, C)
        else:
            y = torch.bmm(self.analysis.expand(B, -1, -1), x).view(B, 2, self.pairs, C)
        z = torch.addcmul(y * self.scale, y.flip(1), self.turn).view(B, 2 * self.pairs, C)
        # TorchScript: freezing rejects an addmm here (it derives a wrong shape), a batched product passes.
        return torch.baddbmm(self.constant, self.synthesis.expand(B, -1, -1), z)


class SeparableFilter(nn.Module):
    """Rows, then columns: a real transform along a keeps K frequencies, a complex one along b follows."""

    def __init__(self, source: GlobalFilter, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.a, self.b = source.a, source.b
        self.K = source.a // 2 + 1
        spectrum = effective_spectrum(source)[: self.K]  # (K, b, C)
        gamma, beta = norm.weight.detach().double(), norm.bias.detach().double()
        weight = (spectrum * gamma).to(torch.complex64)
        rows, columns, columns_back, rows_back = separable_matrices(self.a, self.b)
        self.register_buffer("rows", rows)  # (2K, a)
        self.register_buffer("columns", columns)  # (2b, 2b)
        self.register_buffer("back_re", columns_back[:, : self.b].contiguous())  # (2b, b)
        self.register_buffer("back_im", columns_back[:, self.b :].contiguous())  # (2b, b)
        self.register_buffer("rows_back", rows_back)  # (a, 2K)
        self.register_buffer("weight_re", weight.real.contiguous())
        self.register_buffer("weight_im", weight.imag.contiguous())
        self.register_buffer("constant", (spectrum[0, 0].real * beta).float().repeat(self.b))  # (b*C,)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        if B == 1:  # a plain product starts faster than a batch of one
            y = torch.mm(self.rows, x.view(self.a, self.b * C))
        else:
            y = torch.bmm(self.rows.expand(B, -1, -1), x.view(B, self.a, self.b * C))
        y = y.view(B * self.K, 2 * self.b, C)
        y = torch.bmm(self.columns.expand(B * self.K, -1, -1), y).view(B, self.K, 2 * self.b, C)
        re, im = y[:, :, : self.b], y[:, :, self.b :]  # (B, K, b, C) each
        z_re = torch.addcmul(re * self.weight_re, im, self.weight_im, value=-1.0).view(-1, self.b, C)
        z_im = torch.addcmul(re * self.weight_im, im, self.weight_re).view(-1, self.b, C)
        z = torch.bmm(self.back_re.expand(B * self.K, -1, -1), z_re)
        z = torch.baddbmm(z, self.back_im.expand(B * self.K, -1, -1), z_im)  # (B*K, 2b, C)
        z = z.view(B, 2 * self.K, self.b * C)
        # TorchScript: freezing rejects an addmm here (it derives a wrong shape), a batched product passes.
        return torch.baddbmm(self.constant, self.rows_back.expand(B, -1, -1), z).view(B, N, C)


def separable_matrices(a: int, b: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """float32 matrices of a row-column transform: rows (2K, a), columns (2b, 2b) and their inverses.

    The row transform interleaves real and imaginary parts per frequency, (K, 2), so that the result of one
    product is, without a copy, the stacked operand of the next. All are orthonormal but `rows_back`, which
    counts every frequency once for itself and once for its mirror image.
    """
    K = a // 2 + 1
    dft_a = torch.fft.fft(torch.eye(a, dtype=torch.float64), norm="ortho", dim=0)[:K]  # (K, a)
    rows = torch.stack((dft_a.real, dft_a.imag), dim=1).reshape(2 * K, a)
    dft_b = torch.fft.fft(torch.eye(b, dtype=torch.float64), norm="ortho", dim=0)  # (b, b)
    columns = torch.cat(
        (torch.cat((dft_b.real, -dft_b.imag), dim=1), torch.cat((dft_b.imag, dft_b.real), dim=1))
    )  # (2b, 2b): complex times complex in real parts
    count = torch.tensor([1.0 if k == 0 or 2 * k == a else 2.0 for k in range(K)], dtype=torch.float64)
    rows_back = (rows.view(K, 2, a) * count[:, None, None]).reshape(2 * K, a).T
    return rows.float(), columns.float(), columns.T.contiguous().float(), rows_back.contiguous().float()

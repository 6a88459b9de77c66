"""The global filter as real matrix products, with the norm before it folded in.

`irfft2(rfft2(x) * W)` over an a x b grid is linear and real, so it needs neither an FFT nor complex
numbers, and the affine part of the LayerNorm in front of it folds into the spectrum exactly: gamma
scales every frequency of a channel, beta only adds its own mean frequency, a constant per channel.

Two forms, of which `deploy_filter` takes the cheaper one for the grid:
- `FullFilter` treats the grid as one axis: two N x N products. Fewest operations, best on small grids.
- `SeparableFilter` transforms rows, then columns: fewer multiply-adds, more operations.

Shape letters: B batch, N = a*b tokens, C channels, P, p, q pairs of real coefficients.
"""

import torch
from torch import Tensor, nn

from pi_dynn.models.gfnet import GlobalFilter

# What the operations a SeparableFilter starts beyond those of a FullFilter cost, in multiply-adds of a matrix
# product: 0.2 million instructions on ARM (benchmarks/arm), about 25 us on one x86 core.
MORE_OPERATIONS_MACS = 400_000


def deploy_filter(source: GlobalFilter, norm: nn.LayerNorm, scale: float = 1.0) -> nn.Module:
    """The cheaper real form of `source` after `scale` and the affine part of `norm`: (B, N, C) -> (B, N, C)."""
    a, b, C = source.a, source.b, source.complex_weight.shape[2]
    full = full_macs(a, b, C)
    separable = separable_macs(a, b, C) + MORE_OPERATIONS_MACS
    return (FullFilter if full <= separable else SeparableFilter)(source, norm, scale)


def full_macs(a: int, b: int, C: int) -> int:
    """Multiply-adds of the two products of a FullFilter."""
    return 2 * (a * b) ** 2 * C


def separable_macs(a: int, b: int, C: int) -> int:
    """Multiply-adds of the four products of a SeparableFilter."""
    rows, columns = a + a % 2, b + b % 2
    return 2 * (rows * a * b + columns * b * rows) * C


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

    def __init__(self, source: GlobalFilter, norm: nn.LayerNorm, scale: float = 1.0) -> None:
        super().__init__()
        a, b = source.a, source.b
        basis, pairs = real_fourier_basis(a, b)
        spectrum = effective_spectrum(source)
        gamma, beta = norm.weight.detach().double() * scale, norm.bias.detach().double()
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
        """Tokens (B, N, C) to tokens of the same shape."""
        B, N, C = x.shape
        if B == 1:  # a plain product starts faster than a batch of one
            y = torch.mm(self.analysis, x[0]).view(1, 2, self.pairs, C)
        else:
            y = torch.bmm(self.analysis.expand(B, -1, -1), x).view(B, 2, self.pairs, C)
        z = torch.addcmul(y * self.scale, y.flip(1), self.turn).view(B, 2 * self.pairs, C)
        # TorchScript: freezing rejects an addmm here (it derives a wrong shape), a batched product passes.
        return torch.baddbmm(self.constant, self.synthesis.expand(B, -1, -1), z)


class SeparableFilter(nn.Module):
    """Rows, then columns, each in a real Fourier basis: four small products and a mix of four terms between them.

    A frequency pair (k, l) has four coefficients, cosine or sine along either axis; a circular convolution mixes
    just these. So a coefficient of the answer is the sum of its own, of the one with the other function along
    a, along b, and along both, each times a weight. First the partners along b are mixed into two sums, then the
    second sum goes to its partner along a: that takes five elementwise operations, where one term each takes nine.

    The sums are written into parts of tensors. What is exported must not be: other runtimes copy the whole for each
    part, so `whole_tensors` set on a loaded network has it computed without.
    """

    def __init__(self, source: GlobalFilter, norm: nn.LayerNorm, scale: float = 1.0) -> None:
        super().__init__()
        self.whole_tensors = False
        self.a, self.b = source.a, source.b
        rows, columns = axis_basis(source.a), axis_basis(source.b)  # (2p, a), (2q, b)
        self.p, self.q = len(rows) // 2, len(columns) // 2
        spectrum = effective_spectrum(source)
        gamma, beta = norm.weight.detach().double() * scale, norm.bias.detach().double()
        own, along_a, along_b, along_both = mixing_weights(spectrum * gamma, rows, columns)  # (2, q, 2, p, C) each
        self.register_buffer("rows", rows.float())
        self.register_buffer("columns", columns.float())
        self.register_buffer("rows_back", rows.T.float().contiguous())
        self.register_buffer("columns_back", columns.T.float().contiguous())
        # The second sum changes its place along a afterwards, so its weights are kept where it comes from.
        own, other = (torch.stack((x, y.flip(2))).float() for x, y in ((own, along_a), (along_b, along_both)))
        self.register_buffer("own", own)  # (2, 2, q, 2, p, C)
        self.register_buffer("cosine_from_sine", other[:, 0].contiguous())  # (2, q, 2, p, C)
        self.register_buffer("sine_from_cosine", other[:, 1].contiguous())
        # What beta adds, a constant per channel, is one coefficient: that of the mean, which each token has a share of.
        self.mean_share = (source.a * source.b) ** -0.5
        self.register_buffer("constant", (spectrum[0, 0].real * beta * (source.a * source.b) ** 0.5).float())

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) to tokens of the same shape, each sample alone."""
        if x.shape[0] == 1:
            return self.filtered(x)
        return torch.cat([self.filtered(sample) for sample in x.split(1)])

    def filtered(self, x: Tensor) -> Tensor:
        """One sample: (1, N, C) -> (1, N, C). The axis to be transformed comes first, so each transform is one mm."""
        C = x.shape[2]
        a, b, p, q = self.a, self.b, self.p, self.q
        y = torch.mm(self.rows, x.view(a, b * C)).view(2 * p, b, C).transpose(0, 1)
        y = torch.mm(self.columns, y.reshape(b, 2 * p * C)).view(2, q, 2, p, C)
        z = self.mixed_in_whole(y) if self.whole_tensors else self.mixed(y)
        z = torch.mm(self.columns_back, z.view(2 * q, 2 * p * C)).view(b, 2 * p, C).transpose(0, 1)
        tokens = torch.mm(self.rows_back, z.reshape(2 * p, b * C)).view(1, a * b, C)
        return tokens + self.constant * self.mean_share if self.whole_tensors else tokens

    def mixed(self, y: Tensor) -> Tensor:
        """The coefficients (2, q, 2, p, C) after the filter, what the norm's beta adds included."""
        # TorchScript: select, because it makes of every colon of an index an operation that runs.
        sums = y * self.own
        sums.select(1, 0).addcmul_(y.select(0, 1), self.cosine_from_sine)
        sums.select(1, 1).addcmul_(y.select(0, 0), self.sine_from_cosine)
        z, second = sums.select(0, 0), sums.select(0, 1)
        z.select(2, 0).add_(second.select(2, 1))
        z.select(2, 1).add_(second.select(2, 0))
        z.view(-1, z.shape[-1]).select(0, 0).add_(self.constant)
        return z

    def mixed_in_whole(self, y: Tensor) -> Tensor:
        """The coefficients (2, q, 2, p, C) after the filter, without what the norm's beta adds."""
        one, other = y[0], y[1]
        z = y * self.own[0] + torch.stack((other * self.cosine_from_sine[0], one * self.sine_from_cosine[0]))
        second = y * self.own[1] + torch.stack((other * self.cosine_from_sine[1], one * self.sine_from_cosine[1]))
        return z + torch.cat((second[:, :, 1:], second[:, :, :1]), 2)


def axis_basis(n: int) -> Tensor:
    """The real Fourier basis of one axis as rows (2p, n): p cosines, then as many sines, orthonormal.

    The mean has no sine; an even axis keeps its Nyquist frequency in that place, an odd one a row of zeros.
    """
    dft = torch.fft.fft(torch.eye(n, dtype=torch.float64), norm="ortho", dim=0)
    pairs = dft[1 : (n + 1) // 2] * 2**0.5
    beside_mean = dft[n // 2 : n // 2 + 1].real if n % 2 == 0 else torch.zeros(1, n, dtype=torch.float64)
    return torch.cat((dft[:1].real, pairs.real, beside_mean, pairs.imag))


def mixing_weights(spectrum: Tensor, rows: Tensor, columns: Tensor) -> list[Tensor]:
    """What a coefficient takes of itself, and of its partners along a, b and both: (2, q, 2, p, C), float64.

    The filter is R K R^T in the basis R = columns x rows, with K diagonal in the Fourier basis.
    """
    a, b, C = spectrum.shape
    waves = torch.kron(torch.fft.fft(columns.to(torch.complex128), norm="ortho"), torch.fft.fft(rows, norm="ortho"))
    values = spectrum.transpose(0, 1).reshape(a * b, C)
    index = torch.arange(len(waves)).view(2, len(columns) // 2, 2, len(rows) // 2)
    weights = []
    for swapped in ([], [2], [0], [0, 2]):
        partner = waves[index.flip(swapped).flatten()]
        weights.append(((waves.conj() * partner) @ values).real.view(*index.shape, C))
    return weights

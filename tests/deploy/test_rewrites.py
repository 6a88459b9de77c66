"""Each rewrite of the deploy form against the module it replaces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pi_dynn.deploy.fold import BareNorm, CentredNorm, centred, fold_norm_into_linear
from pi_dynn.deploy.gfnet import CentredMeanHead, DeployBlock, FloatLinear, MeanHead, TokenHead
from pi_dynn.deploy.global_filter import (
    FullFilter,
    SeparableFilter,
    axis_basis,
    deploy_filter,
    full_macs,
    real_fourier_basis,
    separable_macs,
)
from pi_dynn.deploy.network import FusedGate, logistic
from pi_dynn.deploy.quant_linear import DynamicQuantLinear, quantise_weight
from pi_dynn.exits.gate import LearnableUncertaintyGate
from pi_dynn.models.gfnet import Block, GlobalFilter
from pi_dynn.runtime.engines import available_engines

GRIDS = [(8, 8), (11, 6), (43, 6), (14, 14), (7, 7), (1, 1), (2, 1), (11, 18)]


def random_norm(dim: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(dim, eps=1e-6)
    nn.init.normal_(norm.weight, 1.0, 0.3)
    nn.init.normal_(norm.bias, 0.0, 0.3)
    return norm


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
@torch.no_grad()
def test_without_writes_into_parts_the_separable_filter_is_the_same(grid):
    torch.manual_seed(0)
    form = torch.jit.script(SeparableFilter(GlobalFilter(6, grid), random_norm(6)))
    x = torch.randn(2, grid[0] * grid[1], 6)
    expected = form(x)
    form.whole_tensors = True
    assert relative(form(x), expected) < 1e-6
    assert not any(node.kind().endswith("_") for node in form.mixed_in_whole.inlined_graph.nodes())


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
@pytest.mark.parametrize("form", [FullFilter, SeparableFilter])
@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_filter_forms_equal_the_fft_after_the_norm(form, grid, batch):
    torch.manual_seed(0)
    source, norm = GlobalFilter(6, grid), random_norm(6)
    nn.init.normal_(source.complex_weight)
    x = torch.randn(batch, grid[0] * grid[1], 6)
    assert relative(form(source, norm)(x), source(x * norm.weight + norm.bias)) < 1e-5


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def test_real_fourier_basis_is_orthonormal(grid):
    basis, pairs = real_fourier_basis(*grid)
    N = grid[0] * grid[1]
    torch.testing.assert_close(basis.T @ basis, torch.eye(N, dtype=torch.float64), rtol=0, atol=1e-10)
    assert len(basis) == 2 * len(pairs)
    assert len(pairs) == (N + 1) // 2 + (N > 1 and (basis.norm(dim=1) == 0).sum() > 1)


def test_filter_form_follows_the_cost():
    norm = nn.LayerNorm(192)
    assert isinstance(deploy_filter(GlobalFilter(192, (4, 4)), norm), FullFilter)
    assert isinstance(deploy_filter(GlobalFilter(192, (16, 16)), norm), SeparableFilter)
    assert full_macs(8, 8, 192) == 2 * 64 * 64 * 192
    assert separable_macs(8, 8, 192) == 2 * (8 * 64 + 8 * 64) * 192
    assert separable_macs(43, 6, 192) == 2 * (44 * 258 + 6 * 6 * 44) * 192  # an odd axis has a sine to spare


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(0, 100))
@settings(max_examples=30)
@torch.no_grad()
def test_separable_filter_equals_the_fft_on_any_grid(a, b, batch, seed):
    torch.manual_seed(seed)
    source, norm = GlobalFilter(3, (a, b)), random_norm(3)
    nn.init.normal_(source.complex_weight)
    x = torch.randn(batch, a * b, 3)
    expected = source(2.0 * x * norm.weight + norm.bias)
    torch.testing.assert_close(SeparableFilter(source, norm, 2.0)(x), expected, rtol=1e-4, atol=1e-4)


@given(st.integers(1, 50))
def test_axis_basis_is_orthonormal(n):
    basis = axis_basis(n)
    assert len(basis) == n + n % 2
    torch.testing.assert_close(basis.T @ basis, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-10)


@given(st.integers(2, 40), st.floats(1e-4, 1e3), st.integers(0, 100))
@settings(max_examples=50)
@torch.no_grad()
def test_centred_tokens_have_the_same_norm(channels, size, seed):
    torch.manual_seed(seed)
    linear, norm = nn.Linear(5, channels), random_norm(channels)
    x = torch.randn(2, 3, 5) * size
    tokens = nn.functional.linear(x, *centred(linear.weight, linear.bias))
    assert float(tokens.mean(-1).abs().max()) <= 1e-5 * float(tokens.abs().max())
    cheap = CentredNorm(norm)
    normed = cheap(tokens) * cheap.scale * norm.weight + norm.bias
    torch.testing.assert_close(normed, norm(linear(x)), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_norm_folds_into_the_linear_layer():
    norm, linear, x = random_norm(12), nn.Linear(12, 7), torch.randn(2, 5, 12)
    weight, bias = fold_norm_into_linear(norm, linear)
    folded = nn.functional.linear(BareNorm(norm)(x), weight, bias)
    assert relative(folded, linear(norm(x))) < 1e-5


@torch.no_grad()
def test_block_equals_the_training_form():
    torch.manual_seed(1)
    block = Block(24, 4, (8, 8), 0.0).eval()
    block.norm1, block.norm2 = random_norm(24), random_norm(24)
    nn.init.normal_(block.filter.complex_weight)
    x = torch.randn(2, 64, 24)
    assert relative(DeployBlock(block, FloatLinear)(x), block(x)) < 1e-5
    x = x - x.mean(-1, keepdim=True)
    left = DeployBlock(block, FloatLinear, centre=True)(x)
    assert relative(left, block(x) - block(x).mean(-1, keepdim=True)) < 1e-5


@torch.no_grad()
def test_heads_equal_norm_pooling_and_linear():
    norm, cls, dist, x = random_norm(8), nn.Linear(8, 5), nn.Linear(8, 5), torch.randn(3, 10, 8)
    assert relative(MeanHead(norm, cls)(x), cls(norm(x).mean(1))) < 1e-5
    assert relative(CentredMeanHead(norm, cls)(x - x.mean(-1, keepdim=True)), cls(norm(x).mean(1))) < 1e-5
    assert relative(TokenHead(norm, [cls])(x), cls(norm(x)[:, 0])) < 1e-5
    both = (cls(norm(x)[:, 0]) + dist(norm(x)[:, 1])) / 2
    assert relative(TokenHead(norm, [cls, dist])(x), both) < 1e-5


@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=12), st.integers(0, 100))
@settings(max_examples=60)
@torch.no_grad()
def test_fused_gate_equals_the_gate(logits, seed):
    torch.manual_seed(seed)
    gate, z = LearnableUncertaintyGate(), torch.tensor([logits, logits[::-1]])
    torch.testing.assert_close(FusedGate(gate, len(logits))(z), gate(z), rtol=1e-4, atol=1e-5)


@given(st.floats(-800, 800))
def test_logistic_is_the_sigmoid_everywhere(value):
    expected = float(torch.sigmoid(torch.tensor(value, dtype=torch.float64)))
    assert logistic(value) == pytest.approx(expected, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("engine", available_engines())
@torch.no_grad()
def test_int8_layer_is_close_and_does_not_see_its_neighbours(engine):
    torch.manual_seed(2)
    linear = nn.Linear(64, 48)
    layer = DynamicQuantLinear(linear.weight, linear.bias, engine)
    small, large = torch.randn(1, 9, 64), 50 * torch.randn(1, 9, 64)
    for x in (small, large):
        assert float((layer(x) - linear(x)).norm() / linear(x).norm()) < 0.03
    together = layer(torch.cat((small, large)))
    assert torch.equal(together, torch.cat((layer(small), layer(large))))


def test_int8_weights_never_use_minus_128():
    weight = torch.tensor([[-3.0, 1.0], [2.0, 3.0]])
    integers = quantise_weight(weight).int_repr()
    assert integers.abs().max() == 127
    assert quantise_weight(torch.zeros(2, 2)).int_repr().abs().max() == 0

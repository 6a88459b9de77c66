"""Small-kernel aggregation: the form the networks run and the other exact ones it is timed against."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from benchmarks.ska_forms import FORMS
from pi_dynn.models.ska import SmallKernelAggregation


def by_hand(x, kernels):
    """The definition, one number at a time."""
    B, C, H, W = x.shape
    y = torch.zeros_like(x)
    for b, c, h, w in torch.cartesian_prod(*(torch.arange(n) for n in (B, C, H, W))).tolist():
        for tap in range(9):
            row, column = h + tap // 3 - 1, w + tap % 3 - 1
            if 0 <= row < H and 0 <= column < W:
                y[b, c, h, w] += x[b, c, row, column] * kernels[b, c % kernels.shape[1], tap, h, w]
    return y


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_definition(form):
    x, kernels = torch.randn(2, 6, 3, 4), torch.randn(2, 3, 9, 3, 4)
    assert_close(FORMS[form](x, kernels), by_hand(x, kernels))


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
def test_every_form_agrees_on_every_shape(B, G, repeats, H, W):
    x, kernels = torch.randn(B, G * repeats, H, W), torch.randn(B, G, 9, H, W)
    first, *others = (form(x, kernels) for form in FORMS.values())
    for other in others:
        assert_close(other, first, rtol=1e-4, atol=1e-5)


def test_scripted_equals_eager():
    x, kernels = torch.randn(2, 16, 5, 5), torch.randn(2, 2, 9, 5, 5)
    layer = SmallKernelAggregation()
    assert_close(torch.jit.script(layer)(x, kernels), layer(x, kernels))

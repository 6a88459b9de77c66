"""What the blocks compute, beside the reference cases."""

import pytest
import torch
from torch.testing import assert_close

from pi_dynn.errors import ModelError
from pi_dynn.models import create_model
from pi_dynn.models.dft import MatrixFilter, filters_as_matrices
from pi_dynn.models.gfnet import GlobalFilter, drop_path_layer
from pi_dynn.models.macs import describe_model

GRIDS = [(1, 1), (2, 2), (4, 4), (7, 7), (11, 6), (6, 11), (43, 6)]


def circular_convolution(x, source):
    """The filter as what it is: tokens convolved around the grid with the kernel `irfft2(W)`."""
    B, N, C = x.shape
    weight = torch.view_as_complex(source.complex_weight.detach().double())
    kernel = torch.fft.irfft2(weight, s=(source.a, source.b), dim=(0, 1))  # (a, b, C)
    x = x.double().view(B, source.a, source.b, C)
    y = torch.zeros_like(x)
    for i in range(source.a):
        for j in range(source.b):
            y += kernel[i, j] * torch.roll(x, (i, j), dims=(1, 2))
    return y.view(B, N, C)


@pytest.mark.parametrize("grid", GRIDS)
def test_filter_is_a_circular_convolution_in_both_forms(grid):
    torch.manual_seed(0)
    source = GlobalFilter(3, grid)
    x = torch.randn(2, grid[0] * grid[1], 3)
    expected = circular_convolution(x, source)
    assert_close(source(x).double(), expected, rtol=0, atol=1e-6)
    assert_close(MatrixFilter(source)(x).double(), expected, rtol=0, atol=1e-6)


def test_filter_runs_in_float32_whatever_comes_in():
    source = GlobalFilter(3, (4, 4))
    x = torch.randn(1, 16, 3)
    assert source(x.bfloat16()).dtype == torch.float32
    assert MatrixFilter(source)(x.bfloat16()).dtype == torch.float32


def test_matrix_form_keeps_keys_and_trains_the_same_parameter(tiny):
    model = tiny()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    weight = model.blocks[4].filter.complex_weight
    assert filters_as_matrices(model) is model
    assert model.state_dict().keys() == state.keys()
    assert model.blocks[4].filter.complex_weight is weight
    assert model.blocks[4].filter.dft is model.blocks[5].filter.dft
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert weight.grad.abs().sum() > 0


def test_gradients_of_both_filter_forms_agree():
    torch.manual_seed(0)
    source = GlobalFilter(4, (11, 6))
    x, y = torch.randn(2, 66, 4), torch.randn(2, 66, 4)
    gradients = []
    for form in (source, MatrixFilter(source)):
        source.complex_weight.grad = None
        (form(x) * y).sum().backward()
        gradients.append(source.complex_weight.grad.clone())
    assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_stochastic_depth_drops_whole_samples_in_training_only():
    torch.manual_seed(0)
    layer = drop_path_layer(0.25)
    x = torch.ones(4000, 2, 3)
    y = layer.train()(x)
    per_sample = y.flatten(1)
    assert torch.equal(per_sample.amin(1), per_sample.amax(1))
    assert sorted(per_sample[:, 0].unique().tolist()) == pytest.approx([0.0, 4 / 3])
    assert y.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(layer.eval()(x), x)


def test_drop_path_rises_with_depth_and_can_be_set(tiny):
    with torch.device("meta"):
        model = create_model("gfnet_s", num_classes=3, image_size=32)
    assert isinstance(model.blocks[0].drop_path, torch.nn.Identity)
    assert model.blocks[9].drop_path.p == pytest.approx(0.075)
    assert model.blocks[18].drop_path.p == pytest.approx(0.15)
    assert tiny(drop_path=0.2).blocks[11].drop_path.p == pytest.approx(0.2)


def test_answers_do_not_depend_on_the_batch(tiny):
    model = tiny(exits=[4], distilled=True)
    x = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        together = model.forward_exits(x)
        alone = model.forward_exits(x[1:2])
    for (_, logits, gate), (_, logits_alone, gate_alone) in zip(together, alone, strict=True):
        assert_close(logits[1:2], logits_alone, rtol=0, atol=1e-5)
        assert_close(gate[1:2], gate_alone, rtol=0, atol=1e-5)


def test_both_exit_heads_are_averaged(tiny):
    model = tiny(exits=[4], distilled=True, exit_heads="cls+dist")
    tokens = torch.randn(2, 6, 16)
    normed = model.norm(tokens)
    cls, dist = model.intermediate_heads[0](normed[:, 0]), model.intermediate_heads_dist[0](normed[:, 1])
    assert_close(model.exit_logits(tokens, 0), (cls + dist) / 2)
    assert not torch.allclose(cls, dist)


def test_a_plain_network_has_no_distillation_head(tiny):
    with pytest.raises(ModelError, match="distilled=True"):
        tiny().forward_heads(torch.zeros(1, 3, 32, 32))


def test_a_distilled_network_can_take_the_grid_of_a_checkpoint(tiny):
    model = tiny(image_size=128, distilled=True, grid=(22, 3))
    assert model.blocks[0].filter.complex_weight.shape == (22, 2, 16, 2)
    assert model(torch.randn(1, 3, 128, 128)).isfinite().all()


@torch.inference_mode()
def test_a_pooled_network_goes_on_with_a_quarter_of_its_tokens():
    model = create_model("gfnet_12_192_pooled", num_classes=3, image_size=64, exits=[3]).eval()
    assert [(block.filter.a, block.filter.b) for block in model.blocks] == [(4, 4)] * 4 + [(2, 2)] * 8
    tokens = torch.arange(16.0).view(1, 16, 1).expand(2, -1, 192)
    assert model.blocks[3].pool(tokens)[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]
    assert [len(logits) for _, logits, _ in model.forward_exits(torch.randn(2, 3, 64, 64))] == [2, 2]
    for form in ({"image_size": 48}, {"image_size": 64, "distilled": True}):
        with pytest.raises(ModelError, match="cannot be pooled"):
            create_model("gfnet_12_192_pooled", num_classes=3, **form)


def test_the_cheaper_networks_take_half_the_multiply_adds():
    base, *cheaper = (describe_model(f"gfnet_12_192{kind}").macs for kind in ("", "_narrow", "_pooled"))
    assert all(0.5 < macs / base < 0.55 for macs in cheaper)

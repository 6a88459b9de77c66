"""Static int8 of matrix products: ranges of real data, every engine, and floats to fall back to."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pi_dynn import Preprocess, Session, build_bundle
from pi_dynn.deploy import builder
from pi_dynn.deploy.builder import deploy_form
from pi_dynn.deploy.quant_linear import DynamicQuantLinear, FloatLinear, StaticQuantLinear
from pi_dynn.deploy.static_quant import quantise_products
from pi_dynn.errors import ModelError
from pi_dynn.runtime.engine_choice import open_network, relative_error
from pi_dynn.runtime.engines import available_engines, exact_engines


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def static_bundle(model, calibration):
    return build_bundle(
        model,
        exits=[1, 4, 8],
        thresholds=[0.5] * 3,
        precision="int8-static",
        labels=list("abcde"),
        preprocess=Preprocess(size=32),
        calibration=calibration,
    )


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return static_bundle(tiny_model, images(16, seed=1))


@pytest.mark.parametrize("engine", available_engines())
@torch.no_grad()
def test_a_layer_is_as_close_as_its_two_roundings(engine):
    torch.manual_seed(2)
    linear, x = nn.Linear(64, 48), torch.randn(2, 9, 64).clamp(-3, 3)
    y = linear(x)
    step_in, step_out = 6 / 255, float(y.max() - y.min()) / 255
    layer = StaticQuantLinear(
        linear.weight, linear.bias, engine, (step_in, 128), (step_out, round(-float(y.min()) / step_out))
    )
    for reduce_range, factor in ((False, 1), (True, 2)):
        overflows = {"onednn", "x86"} if "onednn" not in exact_engines() else set()  # on a processor without VNNI
        if engine == "qnnpack" if reduce_range else engine in overflows:
            continue  # not for it
        layer.reduce_range = reduce_range
        # each input is off by half a step at most, each weight by half of its own, and the output is rounded once more
        weight_step = float(linear.weight.abs().max()) / 127
        limit = (
            factor * step_in / 2 * linear.weight.abs().sum(1).max() + weight_step / 2 * x.abs().sum(-1).max() + step_out
        )
        assert float((layer(x) - y).abs().max()) <= float(limit), reduce_range
    layer.in_float, layer.weight_float = True, linear.weight
    torch.testing.assert_close(layer(x), y)


@given(st.floats(0.01, 100), st.integers(0, 255), st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4))
@torch.no_grad()
def test_what_is_out_of_range_is_clipped_to_it(step, zero, values):
    """An identity shows the range itself: nothing leaves it, what lies in it moves by no more than the roundings."""
    layer = StaticQuantLinear(torch.eye(4), torch.zeros(4), available_engines()[0], (step, zero), (step, zero))
    layer.reduce_range = False
    x = torch.tensor(values).view(1, 1, 4)
    low, high = -step * zero, step * (255 - zero)
    assert float((layer(x) - x.clamp(low, high)).abs().max()) <= 1.01 * step


@torch.no_grad()
def test_every_product_is_static_and_only_those(tiny_model):
    fp32 = deploy_form(tiny_model, [1, 4, 8], "fp32", None)
    quantised, report = quantise_products(fp32, images(4, seed=1), available_engines()[0])
    kinds = [type(module) for module in quantised.modules()]
    assert kinds.count(StaticQuantLinear) == 25 and FloatLinear not in kinds and DynamicQuantLinear not in kinds
    assert report.images == 4 and len(report.relative_error) == 4 and report.kept_in_fp32 == {}
    assert not any(module._forward_hooks for module in fp32.modules())


@torch.no_grad()
def test_it_is_about_as_close_to_fp32_as_dynamic_int8(bundle, tiny_model):
    x = images(8, seed=3)
    expected = [logits for _, logits, _ in tiny_model.forward_exits(x)]
    dynamic = build_bundle(
        tiny_model, exits=[1, 4, 8], thresholds=[0.5] * 3, labels=list("abcde"), preprocess=Preprocess(size=32)
    )
    for engine in available_engines():
        static, narrow = (
            relative_error(open_network(one, engine, None)[1].forward_all(x), expected) for one in (bundle, dynamic)
        )
        assert static < 2 * narrow + 0.01, engine


def test_it_computes_in_floats_and_is_tested_against_them(bundle):
    assert bundle.manifest.precision == "int8-static" and bundle.manifest.has_floats
    floats = Session(bundle, engine="fp32", threads=1)
    assert floats.engine == "fp32"
    image = images(1, seed=3)[0]
    auto = Session(bundle, threads=1)
    assert auto.engine in available_engines()
    assert (
        abs(auto.classify(image, thresholds=2.0).probability - floats.classify(image, thresholds=2.0).probability) < 0.1
    )


def test_a_range_that_says_nothing_of_the_images_is_refused(tiny_model, monkeypatch):
    monkeypatch.setattr(builder, "STATIC_LIMIT", 1e-6)
    with pytest.raises(ModelError, match="static int8 is off by"):
        static_bundle(tiny_model, images(4, seed=1))

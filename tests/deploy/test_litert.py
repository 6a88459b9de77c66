"""Bundles in static int8 come into LiteRT with their weights, ranges and rounding; those in fp32 as they are."""

import json
from importlib import resources

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pi_dynn import Preprocess, Session, build_bundle, create_model, load_bundle
from pi_dynn.cli.options import sample_folder
from pi_dynn.deploy.litert import described_gate, litert_bundle
from pi_dynn.deploy.litert_gfnet import ends, range_of
from pi_dynn.errors import CheckpointError, ModelError
from pi_dynn.runtime.archive import SHIPPED, form_file
from pi_dynn.runtime.engine_choice import relative_error
from tests.deploy.test_fake_quant import NETWORKS
from tests.deploy.test_static_quant import SIZE, images, static_bundle
from tests.networks import random_gfnet, with_trained_norms

for module in ("onnx", "onnxruntime", "ai_edge_litert"):
    pytest.importorskip(module)
SMALL = {"image_size": 128, "num_classes": 5, "exits": [2, 6]}
GIVEN = {"exits": [2, 6], "thresholds": [0.5] * 2, "labels": list("abcde"), "preprocess": Preprocess(size=128)}
OTHERS = {
    "resnet18": lambda: create_model("resnet18", num_classes=5, image_size=SIZE, exits=[3]),
    "efficientnet_b0": lambda: create_model("efficientnet_b0", num_classes=5, image_size=SIZE, exits=[3]),
    "mobilenet_v2": lambda: create_model("mobilenet_v2", num_classes=5, image_size=SIZE, exits=[3]),
}


@pytest.fixture(scope="module", params=NETWORKS | OTHERS)
def pair(request):
    """A bundle in static int8, and its LiteRT form."""
    torch.manual_seed(0)
    bundle = static_bundle(with_trained_norms((NETWORKS | OTHERS)[request.param]()))
    return bundle, litert_bundle(bundle)


def interpreter_of(graph):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=graph)
    interpreter.allocate_tensors()
    return interpreter


def test_it_answers_like_the_bundle(pair):
    scripted, converted = (Session(bundle, threads=1) for bundle in pair)
    assert pair[1].manifest.precision == "int8-static" and converted.engine == "litert"
    x = images(8)
    for ours, theirs in zip(converted.forward_scored(x), scripted.forward_scored(x), strict=True):
        for got, want in zip(ours, theirs, strict=True):
            assert relative_error([got.reshape(8, -1)], [want.reshape(8, -1)]) < 0.05


def test_it_is_int8_from_stage_to_stage(pair):
    files = pair[1].network_files()
    left, entry = (interpreter_of(files[f"stage{k}.tflite"]) for k in (0, 1))
    one, other = left.get_output_details()[0], entry.get_input_details()[0]
    assert one["dtype"] == other["dtype"] == np.int8
    assert one["quantization"] == other["quantization"] and one["shape"].tolist() == other["shape"].tolist()
    convolutions = [op for op in left._get_ops_details() if "CONV" in op["op_name"]]
    assert convolutions[0]["operand_types"] == [np.int8, np.int8, np.int32]  # a head may have others


@pytest.mark.parametrize("name", ["lite0", "squeezes"])
def test_floats_stay_floats(name):
    torch.manual_seed(0)
    bundle = static_bundle(with_trained_norms(NETWORKS[name]()), precision="fp32", calibration=None)
    scripted, converted = Session(bundle, engine="fp32"), Session(litert_bundle(bundle))
    x = images(4)
    for got, want in zip(converted.forward_all(x), scripted.forward_all(x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


def test_what_has_no_form_is_named(tiny_bundle):
    with pytest.raises(ModelError, match="has no form in LiteRT"):
        litert_bundle(tiny_bundle)
    with pytest.raises(ModelError, match="in LiteRT already"):
        litert_bundle(load_bundle("lite0", form="litert"))
    with pytest.raises(ModelError, match="ReLU has no form beside"):
        described_gate(torch.jit.script(torch.nn.ReLU()))


def test_a_gfnet_is_given_images(tiny_bundle):
    with pytest.raises(ModelError, match="in LiteRT already"):
        litert_bundle(load_bundle("gfnet", form="litert"), torch.zeros(1, 3, 128, 128))
    floats = build_bundle(random_gfnet(**SMALL), **GIVEN, precision="fp32")
    with pytest.raises(CheckpointError, match="cannot be read back"):
        litert_bundle(floats, torch.zeros(1, 3, 128, 128))


DISTILLED = {"distilled": True}


@pytest.mark.parametrize(
    "kind, size, form",
    [
        ("", 128, {}),
        ("_narrow", 128, {}),
        ("_pooled", 128, {}),
        ("", 112, {}),
        ("", 128, DISTILLED),
        ("", 64, DISTILLED | {"exit_heads": "cls+dist"}),
    ],
)
def test_a_gfnet_answers_like_its_bundle(kind, size, form):
    network = random_gfnet(f"gfnet_12_192{kind}", **SMALL | {"image_size": size} | form)
    bundle = build_bundle(network, **GIVEN | {"preprocess": Preprocess(size=size)})
    x = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(1))
    scripted, converted = (Session(one, threads=1) for one in (bundle, litert_bundle(bundle, x)))
    for got, want in zip(converted.forward_scored(x)[0], scripted.forward_scored(x)[0], strict=True):
        assert relative_error([got], [want]) < 0.1


def test_ranges_leave_a_few_outliers_out():
    values = torch.linspace(-1.0, 1.0, 100_001)
    assert ends(torch.cat([values, torch.tensor([90.0, -80.0])])) == pytest.approx((-1.0, 1.0), abs=2e-4)
    assert ends(torch.tensor([[3.0, -2.0]])) == (-2.0, 3.0)  # of few values none


@given(st.floats(-100, 100), st.floats(0, 100))
def test_ranges_hold_their_ends_and_zero(lowest, width):
    steps = range_of(lowest, lowest + width)
    for value in (lowest, lowest + width, 0.0):
        nearest = np.clip(round(value / steps.scale) + steps.zero_point, -128, 127)
        assert abs((nearest - steps.zero_point) * steps.scale - value) <= 1.01 * steps.scale
    assert -128 <= steps.zero_point <= 127


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_form_is_of_the_same_network(name):
    scripted = load_bundle(name)
    form = load_bundle(str(resources.files("pi_dynn.assets") / form_file(SHIPPED[name], "litert")))
    own = ("format", "precision", "packed_engine", "weights_sha256", "pi_dynn_version", "torch_version")
    one, other = ({k: v for k, v in bundle.manifest.to_dict().items() if k not in own} for bundle in (scripted, form))
    assert one == other and len(json.loads(form.read("gates.json"))) == 4
    x = scripted.manifest.preprocess(sorted(sample_folder().glob("*.jpg"))[0])[None]
    pairs = zip(Session(form).forward_all(x), Session(scripted).forward_all(x), strict=True)
    assert all(relative_error([got], [want]) < 0.1 for got, want in pairs)


@given(
    st.integers(5, 12),
    st.integers(1, 2),
    st.sampled_from([1, 3, 5]),
    st.integers(0, 2),
    st.integers(0, 2),
    st.booleans(),
)
def test_windows_see_what_they_see_in_onnx(side, step, kernel, before, after, depthwise):
    """Whether TFLite has a word for the padding, or zeros go around the tensor first."""
    from onnx import TensorProto, helper, numpy_helper

    from pi_dynn.deploy.litert_stage import LiteRtStage

    rng, channels = np.random.default_rng(0), 4
    groups = channels if depthwise else 1
    weight = rng.standard_normal((channels, channels // groups, kernel, kernel)).astype(np.float32)
    bias, x = rng.standard_normal(channels).astype(np.float32), rng.standard_normal((1, channels, side, side))
    pads = [before, min(before, 1), after, after]
    node = helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["features"],
        strides=[step, step],
        kernel_shape=[kernel, kernel],
        pads=pads,
        dilations=[1, 1],
        group=groups,
    )
    head = helper.make_node("GlobalAveragePool", ["features"], ["logits"])
    graph = helper.make_graph(
        [node, head],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("features", "logits")],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    made = interpreter_of(LiteRtStage(helper.make_model(graph), None).graph.pack())
    made.set_tensor(made.get_input_details()[0]["index"], x.astype(np.float32))
    made.invoke()
    got = made.get_tensor(made.get_output_details()[0]["index"])
    around = torch.nn.functional.pad(torch.from_numpy(x).float(), (pads[1], pads[3], pads[0], pads[2]))
    want = torch.conv2d(around, torch.from_numpy(weight), torch.from_numpy(bias), step, groups=groups)
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), want.numpy(), rtol=1e-4, atol=1e-4)

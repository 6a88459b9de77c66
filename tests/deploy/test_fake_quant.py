"""Bundles in static int8 come into ONNX with their weights, ranges and rounding."""

import pytest
import torch
from torch import nn

from pi_dynn import Session, attach_exits, create_model, load_bundle
from pi_dynn.deploy.fake_quant import Layer, _convolution, fake_quantised, is_static_int8
from pi_dynn.errors import ModelError
from pi_dynn.runtime.archive import SHIPPED, form_file
from pi_dynn.runtime.engine_choice import relative_error
from tests.deploy.test_static_quant import SIZE, images, static_bundle, with_relu6
from tests.networks import small_sequential, with_squeezes, with_trained_norms

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

NETWORKS = {
    "branchynet": lambda: create_model("branchynet", num_classes=5, image_size=SIZE, exits=[1, 3]),
    "sequential": lambda: attach_exits(small_sequential(), [1, 2], 5, image_size=SIZE),
    "relu6": lambda: attach_exits(with_relu6(), [0, 1], 5, image_size=SIZE),
    "squeezes": lambda: attach_exits(with_squeezes(), [0, 1], 5, image_size=SIZE),
    "lite0": lambda: create_model("efficientnet_lite0", num_classes=5, image_size=SIZE, exits=[4]),
    "expanded": lambda: create_model(
        "efficientnet_lite0", num_classes=5, image_size=SIZE, exits=[3, 13], exit_heads="expanded"
    ),
}


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request):
    """A bundle in static int8, and its ONNX form."""
    from pi_dynn.deploy.onnx import onnx_bundle

    torch.manual_seed(0)
    bundle = static_bundle(with_trained_norms(NETWORKS[request.param]()))
    return bundle, onnx_bundle(bundle)


def test_it_answers_like_the_bundle(pair):
    scripted, converted = (Session(bundle, threads=1) for bundle in pair)
    assert pair[1].manifest.precision == "int8-static" and converted.engine == "onnxruntime"
    x = images(8)
    for got, want in zip(converted.forward_all(x), scripted.forward_all(x), strict=True):
        assert relative_error([got], [want]) < 0.05


def test_weights_are_stored_in_int8_by_channel(pair):
    graph = onnx.load_from_string(pair[1].read("stage0.onnx")).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv" and node.name.startswith("/stage/")]
    assert convolutions
    for node in convolutions:
        weight, scale, _ = (stored[name] for name in made_by[node.input[1]].input)
        assert weight.dtype == "int8" and scale.shape == weight.shape[:1]


def test_nothing_is_computed_that_is_cut_off(pair):
    """qnnpack pads both sides of a convolution alike; here those that stride pad one more at the end than before."""
    graph = onnx.load_from_string(pair[1].read("full_depth.onnx")).graph
    assert not {"Pad", "Slice"} & {node.op_type for node in graph.node}
    pads = [
        list(attribute.ints)
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Conv" and attribute.name == "pads"
    ]
    if pair[0].manifest.model == "efficientnet_lite0":
        assert [side for side in pads if side[:2] != side[2:]] == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 2, 2]] + [
            [0, 0, 1, 1],
            [1, 1, 2, 2],
        ]


def test_steps_grow_only_where_a_bias_needs_it():
    """In steps of very small weights it would leave int32, where ONNX Runtime cuts it off without a word."""
    from torch.ao.nn.quantized import Conv2d

    with torch.no_grad():
        conv = Conv2d(1, 2, 1)
        weight = torch.quantize_per_channel(
            torch.ones(2, 1, 1, 1),
            torch.tensor([0.01, 1e-11]).double(),
            torch.zeros(2, dtype=torch.long),
            0,
            torch.qint8,
        )
        conv.set_weight_bias(weight, torch.tensor([3.0, 3.0]))
    layer = Layer(conv._packed_params)
    layer.keep_bias_in_int32(0.05)
    assert layer.scales[0] == pytest.approx(0.01)
    assert 3.0 / (0.05 * float(layer.scales[1])) == pytest.approx(2.0**30)


def test_an_operator_without_a_form_in_floats_is_named():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.ops.quantized.leaky_relu(
                torch.quantize_per_tensor(x, 0.1, 0, torch.quint8), 0.1, False, 0.1, 0
            ).dequantize()

    stage = torch.jit.script(Odd())
    assert is_static_int8(stage)
    with pytest.raises(ModelError, match="quantized::leaky_relu"):
        fake_quantised(stage, torch.rand(1, 3, 4, 4))


class Weighed(nn.Module):
    """Operators that are told no range of their own, in int8, and a product."""

    def forward(self, x):
        x = torch.quantize_per_tensor(x, 0.05, 128, torch.quint8)
        mean = nn.functional.adaptive_avg_pool2d(x, 1)
        weighed = torch.ops.quantized.mul(x, nn.functional.hardsigmoid(mean), 0.04, 120)
        return torch.ops.quantized.mul(weighed, torch.sigmoid(x), 0.03, 100).dequantize()


class Swish(nn.Module):
    def forward(self, x):
        x = torch.quantize_per_tensor(x, 0.05, 128, torch.quint8)
        return torch.ops.quantized.hardswish(x, 0.03, 20).dequantize()


@pytest.mark.parametrize("stage", [Weighed(), Swish()], ids=["weighed", "swish"])
def test_it_rounds_where_int8_rounds(stage):
    x = 2 * torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    scripted = torch.jit.freeze(torch.jit.script(stage.eval()))
    difference = (fake_quantised(scripted, x)(x) - scripted(x)).abs()
    step = 0.03
    assert difference.max() < 1.01 * step and (difference > step / 2).float().mean() < 0.02


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_forms_are_of_one_network(name):
    from importlib import resources

    scripted = load_bundle(name)
    form = load_bundle(str(resources.files("pi_dynn.assets") / form_file(SHIPPED[name], "onnx")))
    own = ("format", "packed_engine", "weights_sha256", "pi_dynn_version", "torch_version")
    one, other = ({k: v for k, v in bundle.manifest.to_dict().items() if k not in own} for bundle in (scripted, form))
    assert one == other and "full_depth.onnx" not in form.network_files()
    size = scripted.manifest.preprocess.size
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    pairs = zip(Session(form).forward_all(x), Session(scripted).forward_all(x), strict=True)
    assert all(relative_error([got], [want]) < 0.1 for got, want in pairs)


@pytest.mark.parametrize("size", [9, 10, 11])
@pytest.mark.parametrize("kernel", [3, 5])
def test_only_outputs_that_are_kept_are_computed(size, kernel):
    """They are those that the convolution gives before it is cut, whatever is left over at the end."""
    from torch.ao.nn.quantized import Conv2d

    torch.manual_seed(0)
    with torch.no_grad():
        conv = Conv2d(2, 3, kernel, stride=2, padding=kernel - 1)
        weight = torch.quantize_per_channel(
            torch.randn(3, 2, kernel, kernel), torch.full((3,), 0.01).double(), torch.zeros(3).long(), 0, torch.qint8
        )
        conv.set_weight_bias(weight, torch.randn(3))
    layer, x = Layer(conv._packed_params), torch.randn(1, 2, size, size)
    whole = _convolution(x, layer, 1.0, 0)
    layer.spans = {2: (1, whole.shape[2] - 2), 3: (1, whole.shape[3] - 1)}
    torch.testing.assert_close(_convolution(x, layer, 1.0, 0), whole[:, :, 1:-1, 1:])

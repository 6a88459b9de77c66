"""A stage in static int8 as floats that are rounded where int8 rounds.

ONNX has no quantised operators of torch's. It has pairs of QuantizeLinear and DequantizeLinear, which ONNX Runtime
fuses into int8 again, and which the exporter makes of torch's fake quantisation. So the weights, ranges and rounding
of a bundle come over as they are.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C import Node

from pi_dynn.errors import ModelError

QUINT8_RANGE, QINT8_RANGE = (0, 255), (-128, 127)
# Operators that torch calls the same in int8 and in floats, and the scale and zero point of what they give in int8.
OWN_RANGES = {"aten::hardsigmoid": (1 / 256, 0), "aten::sigmoid": (1 / 256, 0)}
MEANS = ("aten::adaptive_avg_pool2d", "aten::avg_pool2d", "aten::mean")  # in the range of what they read
_CHECKS = ("aten::size", "aten::len", "aten::ne", "aten::gt", "prim::If")  # of the shape, by torch's own modules
_quantized = torch.ops.quantized


def is_static_int8(stage: torch.jit.ScriptModule) -> bool:
    """Whether a part of a network computes in int8 with ranges that are set."""
    return any(node.kind().startswith("quantized::") for node in stage.inlined_graph.nodes())


@torch.no_grad()
def fake_quantised(stage: torch.jit.ScriptModule, x: Tensor) -> torch.jit.ScriptModule:
    """The same stage in floats, traced with `x`; its graph has to be a straight line of operators.

    Raises: ModelError for an operator that has no form in floats here.
    """
    with torch.jit.optimized_execution(False), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # sizes are to be those of `x`
        return torch.jit.trace(_StraightLine(stage), x, check_trace=False)


class _StraightLine(nn.Module):
    """Runs the operators of a graph one after the other, the quantised ones in floats."""

    def __init__(self, stage: torch.jit.ScriptModule) -> None:
        super().__init__()
        graph = stage.inlined_graph
        this, entry = graph.inputs()
        self.entry, self.exit = entry.debugName(), graph.return_node().inputsAt(0).debugName()
        self.known: dict[str, Any] = {this.debugName(): stage}
        self.nodes: list[Node] = []
        self.layers = nn.ModuleList()
        ranges: dict[str, tuple[float, int]] = {}  # scale and zero point of what is in int8
        self.rounded: dict[str, tuple[float, int]] = {}  # those of operators that are not told one
        made_by: dict[str, Layer] = {}  # what a convolution gave, cut or not
        self.same: dict[str, str] = {}  # a cut that its convolution makes
        for node in graph.nodes():
            if node.kind() == "prim::Constant":
                value = node.output().toIValue()
                if isinstance(value, torch.ScriptObject):
                    value = Layer(value)
                    self.layers.append(value)
                elif isinstance(value, Tensor) and value.ndim == 0:
                    value = value.item()  # a scale, which is no part of the trace
                self.known[node.output().debugName()] = value
            elif node.kind() not in _CHECKS:
                names, output = [value.debugName() for value in node.inputs()], node.output().debugName()
                if node.kind() == "aten::narrow" and names[0] in made_by:
                    made_by[names[0]].spans[self.known[names[1]]] = (self.known[names[2]], self.known[names[3]])
                    made_by[output] = made_by[names[0]]
                    self.same[output] = self.same.get(names[0], names[0])
                else:
                    self.nodes.append(node)
                if node.kind() in FLOAT_FORMS and len(names) > 1:
                    layer, place = self.known.get(names[1]), 1 if node.kind() == "aten::quantize_per_tensor" else -2
                    if isinstance(layer, Layer):
                        layer.keep_bias_in_int32(ranges[names[0]][0])
                        made_by[output] = layer
                    ranges[output] = self.known[names[place]], self.known[names[place + 1]]
                elif names and names[0] in ranges and node.kind() != "aten::dequantize":
                    ranges[output] = OWN_RANGES.get(node.kind(), ranges[names[0]])
                    if node.kind() in OWN_RANGES or node.kind() in MEANS:
                        self.rounded[output] = ranges[output]

    def forward(self, x: Tensor) -> Tensor:
        values = self.known | {self.entry: x}
        for node in self.nodes:
            names = (value.debugName() for value in node.inputs())
            inputs = [values[self.same.get(name, name)] for name in names]
            output = node.output().debugName()
            values[output] = _run(node, inputs)
            if output in self.rounded:
                values[output] = _rounded(values[output], *self.rounded[output])
        return values[self.same.get(self.exit, self.exit)]


class Layer(nn.Module):
    """The weights and settings of a quantised layer, out of what an engine packed."""

    def __init__(self, packed: Any) -> None:
        super().__init__()
        convolution = "Conv2d" in packed._type().qualified_name()
        weight, bias = (_quantized.conv2d_unpack if convolution else _quantized.linear_unpack)(packed)
        # Buffers, not constants: of a constant the rounding would be computed when the graph is exported.
        self.register_buffer("weight", weight.dequantize())
        self.register_buffer("bias", bias)
        self.register_buffer("scales", weight.q_per_channel_scales().float())
        self.register_buffer("points", weight.q_per_channel_zero_points().int())
        self.spans: dict[int, tuple[int, int]] = {}  # dimension: first and number of the outputs that are kept
        if convolution:
            self.stride, self.padding = _quantized.conv2d_stride(packed), _quantized.conv2d_padding(packed)
            self.dilation, self.groups = _quantized.conv2d_dilation(packed), _quantized.conv2d_groups(packed)

    def keep_bias_in_int32(self, input_scale: float) -> None:
        """Coarser steps for weights so small that the bias, in steps of both scales, would leave int32.

        ONNX Runtime cuts it off there without a word (1.32, WeightBiasQuantization). The weights of such a channel add
        less than a millionth of its bias.
        """
        if self.bias is not None:
            self.scales = torch.maximum(self.scales, self.bias.abs() / (input_scale * 2.0**30))

    def padded(self, x: Tensor) -> Tensor:
        """What a convolution reads, zeros around it included, for the outputs that are kept.

        qnnpack pads both sides alike, so it computes rows and columns that are cut off again.
        """
        padding = []
        for dim in (3, 2):
            stride, before, kernel = self.stride[dim - 2], self.padding[dim - 2], int(self.weight.shape[dim])
            size, reach = int(x.shape[dim]), self.dilation[dim - 2] * (kernel - 1) + 1
            first, count = self.spans.get(dim, (0, (size + 2 * before - reach) // stride + 1))
            start = before - first * stride
            padding += [start, max(0, (count - 1) * stride + reach - start - size)]  # rows may be left over
        return F.pad(x, padding)

    def rounded_weight(self) -> Tensor:
        """The weight again; the rounding, which changes nothing, is what the exporter looks for."""
        return torch.fake_quantize_per_channel_affine(self.weight, self.scales, self.points, 0, *QINT8_RANGE)


def _run(node: Node, inputs: list[Any]) -> Any:
    """What a node gives for the values of its inputs."""
    kind = node.kind()
    if kind == "prim::ListConstruct":
        return inputs
    if kind == "prim::GetAttr":
        return getattr(inputs[0], node.s("name"))
    if kind in FLOAT_FORMS:
        return FLOAT_FORMS[kind](*inputs)
    name = kind.removeprefix("aten::")
    if name == kind or not hasattr(torch.ops.aten, name):
        raise ModelError(f"{kind} in static int8 has no form in ONNX here: export the checkpoint with --data instead")
    return getattr(torch.ops.aten, name)(*inputs)


def _rounded(x: Tensor, scale: float, zero_point: int) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, *QUINT8_RANGE)


def _convolution(x: Tensor, layer: Layer, scale: float, zero_point: int) -> Tensor:
    x, padding = (layer.padded(x), [0, 0]) if layer.spans else (x, layer.padding)
    return F.conv2d(x, layer.rounded_weight(), layer.bias, layer.stride, padding, layer.dilation, layer.groups)


def _linear(x: Tensor, layer: Layer, scale: float, zero_point: int) -> Tensor:
    return F.linear(x, layer.rounded_weight(), layer.bias)


def _norm(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, *_: Any) -> Tensor:
    return F.batch_norm(x, mean, variance, weight, bias, eps=eps)


def _then_rounded(compute: Callable[..., Tensor], relu: bool = False) -> Callable[..., Tensor]:
    """`compute` with a ReLU if there is one, rounded to the range that its last two arguments give."""

    def run(*inputs: Any) -> Tensor:
        y = compute(*inputs)
        return _rounded(y.relu() if relu else y, *inputs[-2:])

    return run


FLOAT_FORMS: dict[str, Callable[..., Any]] = {
    "aten::quantize_per_tensor": lambda x, scale, zero_point, dtype: _rounded(x, scale, zero_point),
    "aten::dequantize": lambda x: x,
    "quantized::conv2d": _then_rounded(_convolution),
    "quantized::conv2d_relu": _then_rounded(_convolution, relu=True),
    "quantized::linear": _then_rounded(_linear),
    "quantized::linear_relu": _then_rounded(_linear, relu=True),
    "quantized::batch_norm2d": _then_rounded(_norm),
    "quantized::batch_norm2d_relu": _then_rounded(_norm, relu=True),
    "quantized::hardswish": _then_rounded(lambda x, scale, zero_point: F.hardswish(x)),
    "quantized::mul": _then_rounded(lambda a, b, scale, zero_point: a * b),
    "quantized::add": _then_rounded(lambda a, b, scale, zero_point: a + b),
    "quantized::add_relu": _then_rounded(lambda a, b, scale, zero_point: a + b, relu=True),
}

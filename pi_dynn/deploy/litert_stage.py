"""The TFLite graph of a stage, out of its ONNX graph.

A pair of QuantizeLinear and DequantizeLinear is the range of a tensor in TFLite. Channels are last there, and int8 has
signs, so a zero point is 128 less.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pi_dynn.deploy.onnx import import_onnx
from pi_dynn.deploy.tflite import Quantisation, TfliteGraph, import_schema
from pi_dynn.errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

SIGNED = 128  # what a zero point of uint8 is more than the same of int8
SIGMOID = Quantisation(1 / 256, -SIGNED)  # the range torch and TFLite have for it, hard or not


class _Padding(NamedTuple):
    """Rows above and below, columns left and right."""

    top: int
    left: int
    bottom: int
    right: int


class LiteRtStage:
    """The TFLite graph of an ONNX graph: walks from what it gives back to what it reads.

    A value of four dimensions has its channels last here.
    """

    def __init__(self, model: "ModelProto", entry: tuple[list[int], Quantisation | None] | None) -> None:
        """`entry` is the shape and range of the features that the stage before leaves; None for an image.

        Raises: ModelError for an operation that has no form here.
        """
        onnx = import_onnx()
        self.constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
        self.made_by = {name: node for node in model.graph.node for name in node.output}
        self.attributes = {
            node.output[0]: {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
            for node in model.graph.node
        }
        self.graph = TfliteGraph(import_schema())
        self.known: dict[str, int] = {}  # tensors by names in ONNX
        (image,) = model.graph.input
        if entry is None:
            shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
            self.known[image.name] = self._channels_last(self.graph.input(shape))
        else:
            self.known[image.name] = self.graph.input(*entry)
        kinds = {node.op_type for node in model.graph.node}
        landmark = "QuantizeLinear" if "QuantizeLinear" in kinds else "Conv"
        for node in model.graph.node:  # from the image on, so that the walk from the end is not as deep as the network
            if node.op_type == landmark:
                self._value(node.output[0])
        self.left: tuple[list[int], Quantisation | None] | None = None
        names = [one.name for one in model.graph.output]
        if "features" in names:
            features = self._value("features")
            self.left = self.graph.shape(features), self.graph.quantisation(features)
            self.graph.outputs.append(features)
        self.graph.outputs.append(self._in_floats("logits"))

    def _value(self, name: str) -> int:
        """The tensor of a value, in int8 where ONNX rounds it."""
        if name not in self.known:
            node = self.made_by[name]
            form = getattr(self, f"_{node.op_type.lower()}", None)
            if form is None:
                raise ModelError(f"{node.op_type} has no form in LiteRT here: take ONNX")
            self.known[name] = form(node)
        return self.known[name]

    def _in_floats(self, name: str) -> int:
        """The tensor of a value in floats."""
        x = self._value(name)
        if self.graph.quantisation(x) is None:
            return x
        return self.graph.add("DEQUANTIZE", [x], self.graph.shape(x), None)

    def _inputs(self, names: list[str], rounded: Quantisation | None) -> list[int]:
        """What an operation reads: int8 if its result is to be, and floats otherwise."""
        return [self._value(name) if rounded else self._in_floats(name) for name in names]

    def _channels_last(self, x: int) -> int:
        batch, channels, height, width = self.graph.shape(x)
        order = self.graph.constant(np.array([0, 2, 3, 1], np.int32))
        return self.graph.add("TRANSPOSE", [x, order], [batch, height, width, channels], self.graph.quantisation(x))

    # --- operations, by their names in ONNX ---------------------------------------------------------------------

    def _dequantizelinear(self, node: "NodeProto") -> int:
        return self._value(node.input[0])

    def _quantizelinear(self, node: "NodeProto") -> int:
        scale, zero_point = (self.constants[name] for name in node.input[1:])
        rounded = Quantisation(float(scale), int(zero_point) - (SIGNED if zero_point.dtype == np.uint8 else 0))
        source = self.made_by.get(node.input[0])
        relu = source is not None and source.op_type == "Relu"
        if relu:
            source = self.made_by.get(source.input[0])
        kind = "" if source is None else source.op_type
        if kind in ("Conv", "Add", "Gemm"):
            return getattr(self, f"_{kind.lower()}")(source, rounded, relu)
        if kind in ("Mul", "Sigmoid", "HardSigmoid", "GlobalAveragePool") and not relu:
            return getattr(self, f"_{kind.lower()}")(source, rounded)
        x = self._value(node.input[0])
        if self.graph.quantisation(x) == rounded:
            return x
        return self.graph.add("QUANTIZE", [x], self.graph.shape(x), rounded)

    def _relu(self, node: "NodeProto") -> int:
        x = self._value(node.input[0])
        return self.graph.add("RELU", [x], self.graph.shape(x), self.graph.quantisation(x))

    def _clip(self, node: "NodeProto") -> int:
        x, limits = self._value(node.input[0]), [float(self.constants[name]) for name in node.input[1:] if name]
        if limits != [0.0, 6.0]:
            raise ModelError(f"a clip to {limits} has no form in LiteRT here: take ONNX")
        return self.graph.add("RELU6", [x], self.graph.shape(x), self.graph.quantisation(x))

    def _batchnormalization(self, node: "NodeProto") -> int:
        """In floats: what convolutions could not take in."""
        x = self._in_floats(node.input[0])
        weight, bias, mean, variance = (self.constants[name] for name in node.input[1:])
        scale = weight / np.sqrt(variance + self.attributes[node.output[0]]["epsilon"])
        for kind, values in (("MUL", scale), ("ADD", bias - mean * scale)):
            x = self.graph.add(kind, [x, self.graph.constant(values)], self.graph.shape(x), None)
        return x

    def _add(self, node: "NodeProto", rounded: Quantisation | None = None, relu: bool = False) -> int:
        a, b = self._inputs(list(node.input), rounded)
        if self.graph.shape(a) != self.graph.shape(b):
            raise ModelError("a sum of two shapes has no form in LiteRT here: take ONNX")
        return self.graph.add("ADD", [a, b], self.graph.shape(a), rounded, relu=relu)

    def _mul(self, node: "NodeProto", rounded: Quantisation | None = None) -> int:
        """A product; that of a value and its own hard sigmoid, which ONNX Runtime makes of HardSwish, is one again.

        A sigmoid that only a product reads, as in SiLU, is not rounded in ONNX: here it is.
        """
        a, b = node.input
        source = self.made_by.get(b)
        if source is not None and source.op_type == "HardSigmoid" and self._value(source.input[0]) == self._value(a):
            (x,) = self._inputs([a], rounded)
            return self.graph.add("HARD_SWISH", [x], self.graph.shape(x), rounded)
        for name in (a, b) if rounded else ():
            if name in self.made_by and self.made_by[name].op_type == "Sigmoid":
                self.known[name] = self._sigmoid(self.made_by[name], SIGMOID)
        x, y = self._inputs([a, b], rounded)
        shape = np.broadcast_shapes(self.graph.shape(x), self.graph.shape(y))
        return self.graph.add("MUL", [x, y], [int(side) for side in shape], rounded)

    def _sigmoid(self, node: "NodeProto", rounded: Quantisation | None = None) -> int:
        if rounded not in (None, SIGMOID):
            raise ModelError("this sigmoid has no form in LiteRT here: take ONNX")
        (x,) = self._inputs([node.input[0]], rounded)
        return self.graph.add("LOGISTIC", [x], self.graph.shape(x), rounded)

    def _hardsigmoid(self, node: "NodeProto", rounded: Quantisation | None = None) -> int:
        """A sum with 3 cut off at 0 and 6, and its sixth. Rounded, the range of the sum is what cuts it off."""
        alpha = self.attributes[node.output[0]].get("alpha", 0.2)
        if abs(6 * alpha - 1) > 1e-5 or rounded not in (None, SIGMOID):
            raise ModelError("this hard sigmoid has no form in LiteRT here: take ONNX")
        (x,) = self._inputs([node.input[0]], rounded)
        shape = self.graph.shape(x)
        if rounded is None:
            x = self.graph.add("ADD", [x, self.graph.constant(np.array([3.0], np.float32))], shape, None)
            x = self.graph.add("RELU6", [x], shape, None)
            return self.graph.add("MUL", [x, self.graph.constant(np.array([1 / 6], np.float32))], shape, None)
        three, sixth = (self.graph.constant(np.array([127], np.int8), np.array([v / 127])) for v in (3.0, 1 / 6))
        six_times = Quantisation(6 * rounded.scale, rounded.zero_point)
        return self.graph.add("MUL", [self.graph.add("ADD", [x, three], shape, six_times), sixth], shape, rounded)

    def _conv(self, node: "NodeProto", rounded: Quantisation | None = None, relu: bool = False) -> int:
        (x,) = self._inputs([node.input[0]], rounded)
        attributes = self.attributes[node.output[0]]
        channels, groups = self.graph.shape(x)[3], attributes["group"]
        weight, scales = self._weight(node.input[1])
        depthwise = groups == channels and weight.shape[1] == 1
        if groups != 1 and not depthwise:
            raise ModelError(f"a convolution in {groups} groups has no form in LiteRT here: take ONNX")
        if depthwise:
            weight, axis = weight.transpose(1, 2, 3, 0), 3  # (1, kH, kW, O)
            kind, options = "DEPTHWISE_CONV_2D", {"depthMultiplier": weight.shape[3] // channels}
        else:
            weight, axis = weight.transpose(0, 2, 3, 1), 0  # (O, kH, kW, I)
            kind, options = "CONV_2D", {}
        step_h, step_w = attributes["strides"]
        apart_h, apart_w = attributes["dilations"]
        x, shape, padding = self._padded(
            x,
            _Padding(*attributes["pads"]),
            (step_h, step_w),
            [
                apart * (side - 1) + 1
                for apart, side in zip((apart_h, apart_w), attributes["kernel_shape"], strict=True)
            ],
        )
        options |= {
            "padding": padding,
            "strideH": step_h,
            "strideW": step_w,
            "dilationHFactor": apart_h,
            "dilationWFactor": apart_w,
        }
        inputs = [x, *self._weight_and_bias(x, weight, scales, axis, self._constant(node.input[2]), rounded)]
        return self.graph.add(kind, inputs, [*shape, weight.shape[axis]], rounded, relu=relu, **options)

    def _gemm(self, node: "NodeProto", rounded: Quantisation | None = None, relu: bool = False) -> int:
        (x,) = self._inputs([node.input[0]], rounded)
        weight, scales = self._weight(node.input[1])
        inputs = [x, *self._weight_and_bias(x, weight, scales, 0, self._constant(node.input[2]), rounded)]
        shape = [self.graph.shape(x)[0], len(weight)]
        return self.graph.add("FULLY_CONNECTED", inputs, shape, rounded, relu=relu)

    def _maxpool(self, node: "NodeProto") -> int:
        x, attributes = self._value(node.input[0]), self.attributes[node.output[0]]
        rounded, sides, steps = self.graph.quantisation(x), attributes["kernel_shape"], attributes["strides"]
        pads = _Padding(*attributes.get("pads", (0, 0, 0, 0)))
        if attributes.get("ceil_mode") or any(pads) and (rounded is None or rounded.zero_point != -SIGNED):
            raise ModelError("this maximum has no form in LiteRT here: take ONNX")  # zeros around would take part
        x, shape, padding = self._padded(x, pads, steps, sides)
        options = {"padding": padding, "strideH": steps[0], "strideW": steps[1]}
        options |= {"filterHeight": sides[0], "filterWidth": sides[1]}
        return self.graph.add("MAX_POOL_2D", [x], [*shape, self.graph.shape(x)[3]], rounded, **options)

    def _reducemean(self, node: "NodeProto") -> int:
        if self.attributes[node.output[0]]["axes"] != [2, 3] or self.attributes[node.output[0]]["keepdims"]:
            raise ModelError("this mean has no form in LiteRT here: take ONNX")
        return self._globalaveragepool(node, sides=())

    def _globalaveragepool(
        self, node: "NodeProto", rounded: Quantisation | None = None, sides: tuple[int, ...] = (1, 1)
    ) -> int:
        """The mean of each channel, in floats unless ONNX rounds it, as one step of int8 is coarse for a mean."""
        (x,) = self._inputs([node.input[0]], rounded)
        batch, _, _, channels = self.graph.shape(x)
        axes = self.graph.constant(np.array([1, 2], np.int32))
        return self.graph.add("MEAN", [x, axes], [batch, *sides, channels], rounded, keepDims=bool(sides))

    def _flatten(self, node: "NodeProto") -> int:
        x = self._value(node.input[0])
        shape = self.graph.shape(x)
        if len(shape) == 2:
            return x
        rounded = self.graph.quantisation(x)
        if shape[1:3] != [1, 1]:  # a head reads channel after channel
            batch, height, width, channels = shape
            order = self.graph.constant(np.array([0, 3, 1, 2], np.int32))
            x = self.graph.add("TRANSPOSE", [x, order], [batch, channels, height, width], rounded)
        return self.graph.add("RESHAPE", [x], [shape[0], int(np.prod(shape[1:]))], rounded)

    def _reshape(self, node: "NodeProto") -> int:
        """One that changes nothing: the exporter is told the shape of features so."""
        x, wanted = self._value(node.input[0]), self.constants[node.input[1]].tolist()
        batch, *sides, channels = self.graph.shape(x)
        if wanted != [batch, channels, *sides]:
            raise ModelError(f"a reshape to {wanted} has no form in LiteRT here: take ONNX")
        return x

    def _slice(self, node: "NodeProto") -> int:
        """One that leaves all channels, as heads have where nothing was added to them."""
        x = self._value(node.input[0])
        start, stop, axis, *step = (self.constants[name].tolist() for name in node.input[1:])
        if (start, axis, step) != ([0], [1], [[1]]) or stop[0] < self.graph.shape(x)[-1]:
            raise ModelError("this slice has no form in LiteRT here: take ONNX")
        return x

    # --- constants and shapes -----------------------------------------------------------------------------------

    def _constant(self, name: str) -> np.ndarray:
        """A constant in floats, whether ONNX keeps it so or in steps."""
        if name in self.constants:
            return self.constants[name]
        if name in self.made_by and self.made_by[name].op_type == "DequantizeLinear":
            values, scale, *zero_point = (self.constants[one] for one in self.made_by[name].input)
            if not any(point.any() for point in zero_point):
                return values * scale.reshape(-1, *[1] * (values.ndim - 1))
        raise ModelError(f"{name} is not constant, which has no form in LiteRT here: take ONNX")

    def _weight(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """A weight, in int8 with its scales (O,) or in floats with None."""
        weight = self._constant(name)
        if name in self.constants:
            return weight, None
        values, scales, *_ = (self.constants[one] for one in self.made_by[name].input)
        return values, np.broadcast_to(scales, len(values))

    def _weight_and_bias(
        self,
        x: int,
        weight: np.ndarray,
        scales: np.ndarray | None,
        axis: int,
        bias: np.ndarray,
        rounded: Quantisation | None,
    ) -> list[int]:
        """Both as tensors, in int8 and int32 if the result is rounded; scales are along `axis` of the weight."""
        entry = self.graph.quantisation(x)
        if rounded is None or entry is None or scales is None:
            if rounded is not None:
                raise ModelError("an operation that is half in floats has no form in LiteRT here: take ONNX")
            if scales is not None:
                weight = weight * scales.reshape([-1 if dim == axis else 1 for dim in range(weight.ndim)])
            return [self.graph.constant(one.astype(np.float32)) for one in (weight, bias)]
        steps = np.float32(entry.scale) * scales.astype(np.float32)
        in_steps = np.rint(bias.astype(np.float64) / steps).clip(-(2.0**31), 2.0**31 - 1).astype(np.int32)
        return [self.graph.constant(weight, scales, axis), self.graph.constant(in_steps, steps)]

    def _padded(self, x: int, pads: _Padding, steps: Any, reaches: Any) -> tuple[int, list[int], int]:
        """What a window over `x` reads, (batch, height, width) of what it gives, and TFLite's word for the padding."""
        padding = self.graph.schema.Padding
        batch, height, width, channels = self.graph.shape(x)
        around = (pads.top + pads.bottom, pads.left + pads.right)
        sides = [
            (side + more - reach) // step + 1
            for side, more, reach, step in zip((height, width), around, reaches, steps, strict=True)
        ]
        if not any(pads):
            return x, [batch, *sides], padding.VALID
        before = [
            max(0, (got - 1) * step + reach - side) // 2 if got == -(-side // step) else -1
            for got, side, reach, step in zip(sides, (height, width), reaches, steps, strict=True)
        ]
        if before == [pads.top, pads.left]:
            return x, [batch, *sides], padding.SAME
        rows = self.graph.constant(
            np.array([[0, 0], [pads.top, pads.bottom], [pads.left, pads.right], [0, 0]], np.int32)
        )
        shape = [batch, height + around[0], width + around[1], channels]
        return self.graph.add("PAD", [x, rows], shape, self.graph.quantisation(x)), [batch, *sides], padding.VALID

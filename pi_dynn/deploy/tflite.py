"""Writes a TFLite graph: tensors, operations, and the file."""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pi_dynn.errors import EngineUnavailable, need_extra


class Quantisation(NamedTuple):
    """What a step of int8 is worth, and the step that means zero."""

    scale: float
    zero_point: int


# The options of operations that have some, and the versions from which they take int8.
OPTIONS = {
    "ADD": "Add",
    "AVERAGE_POOL_2D": "Pool2D",
    "BATCH_MATMUL": "BatchMatMul",
    "CONCATENATION": "Concatenation",
    "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "DEQUANTIZE": "Dequantize",
    "FULLY_CONNECTED": "FullyConnected",
    "GELU": "Gelu",
    "HARD_SWISH": "HardSwish",
    "MAX_POOL_2D": "Pool2D",
    "MEAN": "Reducer",
    "MUL": "Mul",
    "PAD": "Pad",
    "QUANTIZE": "Quantize",
    "RESHAPE": "Reshape",
    "SLICE": "Slice",
    "SUB": "Sub",
    "TRANSPOSE": "Transpose",
}
VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "HARD_SWISH": 1, "RESHAPE": 1}
OTHER_VERSION = 2
TYPES = {np.dtype("float32"): "FLOAT32", np.dtype("int8"): "INT8", np.dtype("int32"): "INT32"}


class TfliteGraph:
    """A graph that grows by one operation after the other; tensors are numbers.

    Attributes: outputs (tensors it gives, to be appended to).
    """

    def __init__(self, schema: ModuleType) -> None:
        self.schema, self.outputs = schema, list[int]()
        self._graph, self._model = schema.SubGraphT(), schema.ModelT()
        self._graph.tensors, self._graph.operators, self._graph.inputs = [], [], []
        self._model.buffers = [schema.BufferT()]  # the first is of all that hold no constant
        self._model.subgraphs, self._model.operatorCodes, self._model.version = [self._graph], [], 3
        self._codes: dict[str, int] = {}

    def input(self, shape: list[int], quantisation: Quantisation | None = None) -> int:
        """A tensor that the graph reads."""
        x = self._tensor(shape, np.float32 if quantisation is None else np.int8, quantisation)
        self._graph.inputs.append(x)
        return x

    def constant(self, values: np.ndarray, scales: np.ndarray | None = None, axis: int = 0) -> int:
        """A tensor of constant values, with the scales of its steps along `axis` if it is quantised."""
        quantisation = None if scales is None else (scales, np.zeros(len(scales)))
        x = self._tensor(list(values.shape), values.dtype, quantisation, axis)
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._graph.tensors[x].buffer = len(self._model.buffers)
        self._model.buffers.append(buffer)
        return x

    def add(
        self,
        kind: str,
        inputs: list[int],
        shape: list[int],
        rounded: Quantisation | None,
        relu: bool = False,
        **options: Any,
    ) -> int:
        """The result of an operation, in int8 with the range `rounded` or in floats for None."""
        if kind not in self._codes:
            code = self.schema.OperatorCodeT()
            code.builtinCode = getattr(self.schema.BuiltinOperator, kind)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # a byte, which later operations left
            code.version = VERSIONS.get(kind, OTHER_VERSION)
            self._codes[kind] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(code)
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs = self._codes[kind], inputs
        x = self._tensor(shape, np.float32 if rounded is None else np.int8, rounded)
        operator.outputs = [x]
        if kind in OPTIONS:
            name = f"{OPTIONS[kind]}Options"
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, name)
            operator.builtinOptions = getattr(self.schema, f"{name}T")()
            if kind == "RESHAPE":
                options["newShape"] = shape
            if relu:
                options["fusedActivationFunction"] = self.schema.ActivationFunctionType.RELU
            for option, value in options.items():
                setattr(operator.builtinOptions, option, value)
        self._graph.operators.append(operator)
        return x

    def shape(self, x: int) -> list[int]:
        """The shape of a tensor."""
        return list(self._graph.tensors[x].shape)

    def quantisation(self, x: int) -> Quantisation | None:
        """The range of a tensor; None in floats."""
        steps = self._graph.tensors[x].quantization
        return None if steps is None else Quantisation(float(steps.scale[0]), int(steps.zeroPoint[0]))

    def pack(self) -> bytes:
        """The file."""
        import flatbuffers

        self._graph.outputs = self.outputs
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _tensor(
        self, shape: list[int], dtype: Any, quantisation: tuple[ArrayLike, ArrayLike] | None, axis: int = 0
    ) -> int:
        tensor = self.schema.TensorT()
        tensor.shape, tensor.name, tensor.hasRank = shape, str(len(self._graph.tensors)).encode(), True
        tensor.type = getattr(self.schema.TensorType, TYPES[np.dtype(dtype)])
        if quantisation is not None:
            steps = tensor.quantization = self.schema.QuantizationParametersT()
            steps.scale = np.atleast_1d(np.asarray(quantisation[0], np.float32))
            steps.zeroPoint = np.atleast_1d(np.asarray(quantisation[1], np.int64))
            steps.quantizedDimension = axis
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1


def import_schema() -> ModuleType:
    """The schema of TFLite files that comes with LiteRT. Raises EngineUnavailable."""
    with need_extra("litert", "a LiteRT bundle", EngineUnavailable):
        from ai_edge_litert import schema_py_generated as schema
    module: ModuleType = schema
    return module

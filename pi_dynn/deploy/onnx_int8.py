"""ONNX graphs in int8, by ONNX Runtime's own quantiser; heads and gates stay in fp32."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pi_dynn.runtime.onnx_network import FULL_DEPTH, import_onnxruntime

# What costs time, and what lies between: a norm or an activation that stays in float in between is exact.
STATIC_OPERATIONS = ["Conv", "Gemm", "MatMul", "Add", "MaxPool", "AveragePool", "GlobalAveragePool"]


def dynamic_graphs(graphs: Mapping[str, object]) -> dict:
    """The graphs, by file, with products by constant weights in int8; their inputs are quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def quantise(graph, path: str) -> None:
        quantize_dynamic(
            graph, path, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, nodes_to_exclude=in_float(graph)
        )

    return {name: _through_file(graph, quantise) for name, graph in graphs.items()}


def static_graphs(graphs: Mapping[str, object], images: Tensor) -> dict:
    """The graphs, by file, in int8 all through, with the ranges that `images` (N, 3, H, W) fill.

    A stage is shown what the stage before makes of the images in float, all of them, whether they would leave or not.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Inputs(CalibrationDataReader):
        """One input at a time, as the quantiser asks for them."""

        def __init__(self, arrays: list) -> None:
            self._rows = iter([{"input": array} for array in arrays])

        def get_next(self) -> dict | None:
            return next(self._rows, None)

    runtime, made = import_onnxruntime(), {}
    first = features = [image.numpy() for image in images.split(1)]
    for name, graph in graphs.items():
        inputs = first if name == FULL_DEPTH else features

        def quantise(graph, path: str, inputs: list = inputs) -> None:
            """Write `graph` to `path` with the ranges that `inputs` fill."""
            quantize_static(
                graph,
                path,
                Inputs(inputs),
                op_types_to_quantize=STATIC_OPERATIONS,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                nodes_to_exclude=in_float(graph),
            )

        stage = runtime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        features = [stage.run(None, {"input": array})[0] for array in inputs]
        made[name] = _through_file(graph, quantise)
    return made


def in_float(graph) -> list[str]:
    """The nodes of head and gate, which cost less than quantising their input would."""
    kept = [node.name for node in graph.graph.node if node.name.startswith(("/head/", "/gate/"))]
    return [*kept, *(f"{name}_MatMul" for name in kept)]  # what the quantiser calls a Gemm it takes apart


def _through_file(graph, quantise):
    """What `quantise(graph, path)` writes; ONNX Runtime's quantisers know no other way."""
    import onnx
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    add_pre_process_metadata(graph)  # says that it has been optimised
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "graph.onnx")
        quantise(graph, path)
        return onnx.load(path)

"""A bundle's ONNX form: one graph per stage, and one of the full depth without exits.

The graphs are made from the scripted network, so any bundle has an ONNX form, with or without its checkpoint.
They take one image at a time, as a device does; which exit answers is decided between them, outside.
"""

import functools
import io
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch._C import Block, Graph, Node, Value
from torch.fx.experimental.proxy_tensor import make_fx

from pi_dynn.deploy.fake_quant import fake_quantised, is_static_int8
from pi_dynn.deploy.scripting import script
from pi_dynn.errors import EngineUnavailable, ModelError, need_extra
from pi_dynn.runtime.bundle import Bundle, pack_files
from pi_dynn.runtime.engine_choice import exact_network, relative_error
from pi_dynn.runtime.forms import FORM_NAMES, ONNX, TORCHSCRIPT
from pi_dynn.runtime.manifest import INT8_STATIC, Manifest
from pi_dynn.runtime.onnx_network import FULL_DEPTH, OnnxNetwork, import_onnxruntime, stage_file
from pi_dynn.runtime.stage_network import StageNetwork

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

AnyModule = TypeVar("AnyModule", bound=nn.Module)
# Operators worth quantising; norms and activations between them stay in float and are exact.
STATIC_OPERATIONS = ["Conv", "Gemm", "MatMul", "Add", "MaxPool", "AveragePool", "GlobalAveragePool"]


def dynamic_graphs(graphs: Mapping[str, "ModelProto"]) -> dict[str, "ModelProto"]:
    """The graphs, by file, with products by constant weights in int8; their inputs are quantised dynamically."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def quantise(graph: "ModelProto", path: str) -> None:
        quantize_dynamic(
            graph, path, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, nodes_to_exclude=in_float(graph)
        )

    return {name: _through_file(graph, quantise) for name, graph in graphs.items()}


def static_graphs(graphs: Mapping[str, "ModelProto"], images: Tensor) -> dict[str, "ModelProto"]:
    """The graphs, by file, in int8 all through, with the ranges that `images` (N, 3, H, W) fill.

    A stage is calibrated on the float outputs of the stage before for all images, whether they would leave or not.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Inputs(CalibrationDataReader):
        """A reader of one input at a time, for the quantiser."""

        def __init__(self, arrays: list[np.ndarray]) -> None:
            self._rows = iter([{"input": array} for array in arrays])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._rows, None)

    runtime, made = import_onnxruntime(), {}
    first = features = [image.numpy() for image in images.split(1)]
    for name, graph in graphs.items():
        inputs = first if name == FULL_DEPTH else features

        def quantise(graph: "ModelProto", path: str, inputs: list[np.ndarray] = inputs) -> None:
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


def in_float(graph: "ModelProto") -> list[str]:
    """The nodes of head and gate, which cost less than quantising their input would."""
    nodes = [node.name for node in graph.graph.node if node.name.startswith(("/head/", "/gate/"))]
    return [*nodes, *(f"{name}_MatMul" for name in nodes)]  # what the quantiser calls a Gemm it takes apart


def _through_file(graph: "ModelProto", quantise: Callable[["ModelProto", str], None]) -> "ModelProto":
    """The file that `quantise(graph, path)` writes; ONNX Runtime's quantisers work on files only."""
    import onnx
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    add_pre_process_metadata(graph)  # says that it has been optimised
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "graph.onnx")
        quantise(graph, path)
        return onnx.load(path)


OPSET = 17  # the first with LayerNormalization
WORST_RELATIVE_ERROR = {"fp32": 1e-4, "int8": 0.10, INT8_STATIC: 0.30}  # a broken graph has a far larger error


class StageWithExit(nn.Module):
    """Features of the stage before -> features, logits (1, classes), gate value (1,) before the sigmoid."""

    shape: list[int]  # of the features: the exporter loses track of it, and heads ask for it

    def __init__(self, stage: nn.Module, head: nn.Module, gate: nn.Module, shape: list[int]) -> None:
        super().__init__()
        self.stage, self.head, self.gate, self.shape = stage, head, gate, shape

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.stage(x).view(self.shape)
        logits = self.head(features)
        return features, logits, self.gate(logits)


class LastStage(nn.Module):
    """Features of the stage before -> logits (1, classes)."""

    shape: list[int]

    def __init__(self, stage: nn.Module, head: nn.Module, shape: list[int]) -> None:
        super().__init__()
        self.stage, self.head, self.shape = stage, head, shape

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stage(x).view(self.shape))


def onnx_bundle(bundle: Bundle, precision: str | None = None, images: Tensor | None = None) -> Bundle:
    """The ONNX form of a TorchScript bundle, in its own precision or the one given.

    Static int8 comes over as it is. For int8, products with constant weights are quantised dynamically by ONNX
    Runtime. Convolutions need to know their inputs beforehand: with `images` (N, 3, H, W), preprocessed, everything is
    quantised statically.

    Raises: EngineUnavailable without onnx and onnxruntime; ModelError for a bundle that is in ONNX already or has
    nothing to quantise, or if the graphs answer otherwise than the network.
    """
    onnx = import_onnx()
    if bundle.manifest.format != TORCHSCRIPT:
        raise ModelError(f"{bundle.source or 'the bundle'} is in {FORM_NAMES[bundle.manifest.format]} already")
    manifest = bundle.manifest
    precision = precision or manifest.precision
    if precision == INT8_STATIC and manifest.has_floats:
        precision = "int8"  # the network is not built around its ranges
    if precision != INT8_STATIC and not manifest.has_floats:
        raise ModelError(f"{bundle.source or 'the bundle'} holds int8 and no floats: leave --precision out")
    network = exact_network(bundle)
    size = manifest.preprocess.size
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    graphs = {name: optimised(graph) for name, graph in exported_graphs(network, x).items()}
    if precision == "int8":
        graphs = dynamic_graphs(graphs) if images is None else static_graphs(graphs, images)
        if not any(node.op_type in ("MatMulInteger", "QuantizeLinear") for node in graphs[FULL_DEPTH].graph.node):
            raise ModelError(
                f"int8 needs real images for the convolutions of {bundle.manifest.model}: give some, or take fp32"
            )
    files = {name: with_own_zero_points(graph).SerializeToString() for name, graph in graphs.items()}
    for content in files.values():
        onnx.checker.check_model(content, full_check=True)
    networks = [
        OnnxNetwork([files[stage_file(k)] for k in range(len(manifest.blocks))], threads=1),
        OnnxNetwork([files[FULL_DEPTH]], threads=1),
    ]
    assert_parity(network, networks, x if images is None else images, precision if images is None else INT8_STATIC)

    def describe(weights_sha256: str) -> Manifest:
        """The manifest of the graphs whose weights have this digest."""
        values = manifest.to_dict() | {
            "format": ONNX,
            "precision": precision,
            "packed_engine": None,
            "weights_sha256": weights_sha256,
        }
        return Manifest.from_dict(values)

    return pack_files(files, describe)


def without_full_depth(bundle: Bundle) -> Bundle:
    """An ONNX bundle without the graph for other programs, which is half of the file."""
    files = {name: content for name, content in bundle.network_files().items() if name != FULL_DEPTH}
    return pack_files(files, lambda digest: replace(bundle.manifest, weights_sha256=digest))


def import_onnx() -> ModuleType:
    """The onnx package, ONNX Runtime being there too. Raises EngineUnavailable."""
    import_onnxruntime()
    with need_extra("onnx", "an ONNX bundle", EngineUnavailable):
        import onnx
    return onnx


@torch.no_grad()
def exported_graphs(network: torch.jit.ScriptModule, x: Tensor) -> dict[str, "ModelProto"]:
    """The ONNX graphs of a loaded network by file, for images like `x`: its stages and its full depth."""
    in_whole_tensors(network)
    stages, heads, gates = (list(part.children()) for part in (network.stages, network.heads, network.gates))
    last, image = len(stages), x
    stem, *stages = _in_floats([network.stem, *stages, network.last_stage], x)
    trunk = script(nn.Sequential(stem, *stages))
    stages[0] = script(nn.Sequential(stem, stages[0]))
    graphs = {}
    # TorchScript: unoptimised, or the few runs of a stage here compile it first.
    with torch.jit.optimized_execution(False):
        for k, (stage, head, gate) in enumerate(zip(stages[:-1], heads, gates, strict=True)):
            features, stage = stage(x), without_writes_into_views(stage, x)
            part = StageWithExit(stage, _head_in_floats(head, features), gate, list(features.shape))
            graphs[stage_file(k)] = exported(part, x, ["features", "logits", "gate"])
            x = features
        shape = list(stages[-1](x).shape)
        for name, stage, entry in ((stage_file(last), stages[-1], x), (FULL_DEPTH, trunk, image)):
            part = LastStage(without_writes_into_views(stage, entry), network.last_head, shape)
            graphs[name] = exported(part, entry, ["logits"])
    return graphs


def _in_floats(parts: list[torch.jit.ScriptModule], x: Tensor) -> list[torch.jit.ScriptModule]:
    """The parts of a network for images like `x`, those in static int8 as floats that are rounded."""
    made = []
    for part in parts:
        made.append(fake_quantised(part, x) if is_static_int8(part) else part)
        x = part(x)
    return made


def _head_in_floats(head: torch.jit.ScriptModule, features: Tensor) -> nn.Module:
    """The same for the head of an exit, of which only convolutions of its own are in int8."""
    if not is_static_int8(head):
        return head
    maps, answer = head.children()
    return script(nn.Sequential(fake_quantised(maps, features), answer))


def in_whole_tensors(network: AnyModule) -> AnyModule:
    """`network` without writes into parts of tensors, as far as it knows how; the same object."""
    for module in network.modules():
        if hasattr(module, "whole_tensors"):
            module.whole_tensors = True
    return network


def without_writes_into_views(stage: torch.jit.ScriptModule, x: Tensor) -> torch.jit.ScriptModule:
    """`stage` with new tensors where it writes into parts of old ones, which the exporter gets wrong in silence."""
    written = (next(node.inputs()).node() for node in _all_nodes(stage.inlined_graph) if node.kind().endswith("_"))
    if not any(node.kind() == "aten::select" for node in written):
        return stage

    def select_scatter(x: Tensor, part: Tensor, dim: int, index: int) -> Tensor:
        before, after = x.narrow(dim, 0, index), x.narrow(dim, index + 1, x.shape[dim] - index - 1)
        return torch.cat((before, part.unsqueeze(dim), after), dim)

    decompositions = {
        torch.ops.aten.select_scatter.default: select_scatter,
        torch.ops.aten._unsafe_view.default: torch.ops.aten.view.default,
    }
    functional = make_fx(torch.func.functionalize(stage), decomposition_table=decompositions)(x)
    return torch.jit.trace(functional, x)  # a straight line of operations: there is no branch to freeze


def _all_nodes(block: Graph | Block) -> list[Node]:
    """The nodes of a graph, those inside its branches included."""
    return [
        one
        for node in block.nodes()
        for one in (node, *(deep for inner in node.blocks() for deep in _all_nodes(inner)))
    ]


def exported(part: nn.Module, x: Tensor, outputs: list[str]) -> "ModelProto":
    """The ONNX graph of a part of a network; what it reads is called "input"."""
    onnx = import_onnx()
    _teach_the_exporter()
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # Of torch's two exporters this is the one that reads scripted networks; it is announced as deprecated.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            script(part.eval()),
            (x,),
            stream,
            dynamo=False,
            opset_version=OPSET,
            do_constant_folding=False,  # ONNX Runtime does it, and leaves the rounding of int8 weights in the graph
            input_names=["input"],
            output_names=outputs,
        )
    return onnx.load_from_string(stream.getvalue())


@functools.cache
def _teach_the_exporter() -> None:
    """Two operations of the gates the exporter has no ONNX for."""

    def entropy_terms(graph: Any, p: Value) -> Value:
        smallest = graph.op("Constant", value_t=torch.tensor(torch.finfo(torch.float32).tiny))
        return graph.op("Neg", graph.op("Mul", p, graph.op("Log", graph.op("Max", p, smallest))))

    def added_product(graph: Any, bias: Value, matrix: Value, vector: Value, beta: Value, alpha: Value) -> Value:
        return graph.op("Add", bias, graph.op("MatMul", matrix, vector))

    torch.onnx.register_custom_op_symbolic("aten::special_entr", entropy_terms, OPSET)
    torch.onnx.register_custom_op_symbolic("aten::addmv", added_product, OPSET)


def optimised(graph: "ModelProto") -> "ModelProto":
    """`graph` with constants folded and named, by the optimisations of ONNX Runtime that any processor can run."""
    onnx, onnxruntime = import_onnx(), import_onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "stage.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = path
        options.log_severity_level = 3
        onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return padded_by_convolutions(onnx.load(path))


def padded_by_convolutions(model: "ModelProto") -> "ModelProto":
    """`model` with zeros that are put around what a convolution reads as that one's own padding, in place.

    ONNX Runtime (1.32) merges the two as well, but not behind a node that dequantises: all would stay in floats.
    """
    numpy_helper = import_onnx().numpy_helper
    made_by = {name: node for node in model.graph.node for name in node.output}
    constants = {constant.name: constant for constant in model.graph.initializer}
    merged = []
    for conv in [node for node in model.graph.node if node.op_type == "Conv"]:
        pad = made_by.get(conv.input[0])
        if pad is not None and pad.op_type == "Pad" and pad.input[1] in constants:
            around = numpy_helper.to_array(constants[pad.input[1]]).reshape(2, 4)
            (own,) = (attribute for attribute in conv.attribute if attribute.name == "pads")
            own.ints[:] = (around[:, 2:].ravel() + own.ints).tolist()
            conv.input[0] = pad.input[0]
            merged.append(pad)
    read = _names_read(model.graph)
    for pad in merged:
        if pad.output[0] not in read:
            model.graph.node.remove(pad)
    return model


def with_own_zero_points(model: "ModelProto") -> "ModelProto":
    """`model` with zero points of its own for every constant that is dequantised and none that nothing reads, in place.

    ONNX Runtime (1.32) refuses shared ones where it has to make weights unsigned, see `OnnxNetwork`.
    """
    constants = {constant.name: constant for constant in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and constants.keys() >= {node.input[0], *node.input[2:]}:
            for name in node.input[2:]:
                node.input[2] = f"{node.output[0]}_zero_point"
                own = model.graph.initializer.add()
                own.CopyFrom(constants[name])
                own.name = node.input[2]
    for name in constants.keys() - _names_read(model.graph):
        model.graph.initializer.remove(constants[name])
    return model


def _names_read(graph: "GraphProto") -> set[str]:
    """What the nodes of a graph read, those inside its branches and loops included."""
    inner = (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return {name for node in graph.node for name in node.input}.union(*map(_names_read, inner))


def assert_parity(network: torch.jit.ScriptModule, made: Sequence[StageNetwork], x: Tensor, precision: str) -> None:
    """Raise ModelError unless networks of graphs give the last logits of `network`, and as many before as they have."""
    with torch.inference_mode(), torch.jit.optimized_execution(False):
        expected = [torch.cat(exits) for exits in zip(*(network.forward_all(one) for one in x.split(1)), strict=True)]
    for graphs in made:
        for answer, reference in zip(graphs.forward_all(x.numpy()), expected[-graphs.exits - 1 :], strict=True):
            error = relative_error([torch.from_numpy(answer)], [reference])
            if not error <= WORST_RELATIVE_ERROR[precision]:
                raise ModelError(f"the {precision} graphs are off by {error:.1e}: are the network's weights trained?")

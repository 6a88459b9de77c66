"""A bundle's LiteRT form: one TFLite graph per stage, out of its ONNX graphs.

Weights, ranges and rounding come over as they are. Features stay in int8 from one graph to the next. Gates are computed
beside the graphs (`pi_dynn.runtime.gate_values`).
"""

import json

import torch
from torch import Tensor

from pi_dynn.deploy.litert_gfnet import gfnet_graphs
from pi_dynn.deploy.litert_stage import LiteRtStage
from pi_dynn.deploy.onnx import assert_parity, import_onnx, onnx_bundle
from pi_dynn.deploy.tflite import import_schema
from pi_dynn.errors import ModelError
from pi_dynn.runtime.bundle import Bundle, pack_files
from pi_dynn.runtime.engine_choice import exact_network
from pi_dynn.runtime.forms import FORM_NAMES, LITERT, TORCHSCRIPT
from pi_dynn.runtime.gate_values import LEARNED, Gate
from pi_dynn.runtime.litert_network import GATES_FILE, LiteRtNetwork, import_litert, stage_file
from pi_dynn.runtime.manifest import INT8_STATIC, Manifest
from pi_dynn.runtime.onnx_network import stage_file as onnx_stage_file

PARITY_IMAGES = 8


def litert_bundle(bundle: Bundle, images: Tensor | None = None) -> Bundle:
    """The LiteRT form of a TorchScript bundle in static int8 or fp32.

    An isotropic GFNet in dynamic int8 gets the ranges that `images` (N, 3, H, W), preprocessed, fill.

    Raises: EngineUnavailable without LiteRT, onnx and onnxruntime; ModelError for a bundle of graphs or one whose
    operations have no form here, or if the graphs answer otherwise than the network.
    """
    import_litert()
    in_onnx, manifest = None, bundle.manifest
    if images is None:
        in_onnx = onnx_bundle(bundle)
        manifest = in_onnx.manifest
    elif manifest.format != TORCHSCRIPT:
        raise ModelError(f"{bundle.source or 'the bundle'} is in {FORM_NAMES[manifest.format]} already")
    network = exact_network(bundle)
    gates = [described_gate(gate) for gate in network.gates.children()]
    graphs = gfnet_graphs(bundle, images, import_schema()) if in_onnx is None else _graphs_like(in_onnx)
    precision = INT8_STATIC if in_onnx is None else manifest.precision
    size = manifest.preprocess.size
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert_parity(
        network, [LiteRtNetwork(graphs, 1, gates)], x if images is None else images[:PARITY_IMAGES], precision
    )
    files = {stage_file(k): graph for k, graph in enumerate(graphs)}
    files[GATES_FILE] = json.dumps([gate.to_dict() for gate in gates]).encode()

    def describe(weights_sha256: str) -> Manifest:
        """The manifest of the graphs whose weights have this digest."""
        values = {"format": LITERT, "precision": precision, "packed_engine": None, "weights_sha256": weights_sha256}
        return Manifest.from_dict(manifest.to_dict() | values)

    return pack_files(files, describe)


def _graphs_like(bundle: Bundle) -> list[bytes]:
    """The graph of every stage of an ONNX bundle."""
    onnx, files, graphs, entry = import_onnx(), bundle.network_files(), [], None
    for k in range(len(bundle.manifest.blocks)):
        stage = LiteRtStage(onnx.load_from_string(files[onnx_stage_file(k)]), entry)
        graphs.append(stage.graph.pack())
        entry = stage.left
    return graphs


def described_gate(gate: torch.jit.ScriptModule, temperature: float = 1.0) -> Gate:
    """The gate of an exit as plain data. Raises: ModelError for one of another kind."""
    kinds = {"MaxProbabilityGate": "max-probability", "MarginGate": "margin", "EntropyGate": "entropy"}
    name = gate.original_name
    if name == "ScaledGate":
        return described_gate(gate.gate, temperature * float(gate.temperature))
    if name in kinds:
        return Gate(kinds[name], temperature)
    if name == "FusedGate":
        of_p, of_q = float(gate.entropy_weight[0]), float(gate.entropy_weight[-1])
        weights = [*gate.top_weight.tolist(), of_p, of_q, float(gate.bias)]
        return Gate(LEARNED, temperature * float(gate.powers[0]), weights)
    raise ModelError(f"the gate {name} has no form beside a LiteRT graph")

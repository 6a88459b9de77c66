"""A bundle's network on ONNX Runtime. Imports no torch."""

from types import ModuleType
from typing import Any

from pi_dynn.board import instruction_sets
from pi_dynn.errors import BundleError, EngineUnavailable, need_extra
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.stage_network import Stage, StageNetwork

FULL_DEPTH = "full_depth.onnx"  # for other programs: image to last logits, no exits
VNNI = {"avx512_vnni", "avx_vnni"}  # with either an x86 processor adds int8 products in 32 bits


def stage_file(k: int) -> str:
    """The name of the graph of stage `k` in a bundle."""
    return f"stage{k}.onnx"


def import_onnxruntime() -> ModuleType:
    """ONNX Runtime. Raises EngineUnavailable if it is not installed."""
    with need_extra("onnx", "engine 'onnxruntime'", EngineUnavailable):
        import onnxruntime
    runtime: ModuleType = onnxruntime
    return runtime


def open_onnx(bundle: Bundle, threads: int) -> "OnnxNetwork":
    """The network of an ONNX bundle. Raises: EngineUnavailable without ONNX Runtime."""
    files = bundle.network_files()
    return OnnxNetwork([files[stage_file(k)] for k in range(len(bundle.manifest.blocks))], threads)


class OnnxNetwork(StageNetwork):
    """Stages whose graphs give (features, logits, gate value), the last one logits alone."""

    def open_stages(self, graphs: list[bytes], threads: int) -> list[Stage]:
        """ONNX Runtime's session of each graph. Raises: EngineUnavailable, BundleError."""
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Each stage has its own threads: those of the stage before must not keep spinning.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if not VNNI & instruction_sets():
            # x86 alone: it would add pairs of products in 16 bits, which large ones overflow. This is exact and slower.
            options.add_session_config_entry("session.x64quantprecision", "1")
        providers = ["CPUExecutionProvider"]
        try:
            return [_stage(onnxruntime.InferenceSession(graph, options, providers=providers)) for graph in graphs]
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            reason = str(error).splitlines()[0]
            raise BundleError(f"ONNX Runtime cannot load the bundle ({reason}); export it again") from error


def _stage(session: Any) -> Stage:
    name = session.get_inputs()[0].name

    def run(features: Any) -> Any:
        outputs = session.run(None, {name: features})
        if len(outputs) == 1:
            return None, outputs[0], None
        # float64, like the other engines, so that a threshold means the same
        return outputs[0], outputs[1], float(outputs[2][0])

    return run

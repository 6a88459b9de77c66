"""A bundle's network on ONNX Runtime, with the methods of the scripted one and one graph per stage. Imports no torch.

Shape letters: B batch, K exits.
"""

import math
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from pi_dynn.errors import BundleError, EngineUnavailable, need_extra
from pi_dynn.runtime.bundle import Bundle

if TYPE_CHECKING:
    from torch import Tensor

ONNX = "onnx"  # the format in a manifest
ONNXRUNTIME = "onnxruntime"  # the engine
FULL_DEPTH = "full_depth.onnx"  # for other programs: image to last logits, no exits

Answer = tuple[np.ndarray, int, float]  # logits (1, classes), exit index, score


def stage_file(k: int) -> str:
    """The name of the graph of stage `k` in a bundle."""
    return f"stage{k}.onnx"


def import_onnxruntime() -> ModuleType:
    """ONNX Runtime. Raises EngineUnavailable if it is not installed."""
    with need_extra("onnx", "engine 'onnxruntime'", EngineUnavailable):
        import onnxruntime
    runtime: ModuleType = onnxruntime
    return runtime


def open_onnx(bundle: Bundle, engine: str, threads: int) -> "OnnxNetwork":
    """The network of an ONNX bundle.

    Raises: EngineUnavailable for another engine, another kind of bundle, or without ONNX Runtime.
    """
    if bundle.manifest.format != ONNX:
        raise EngineUnavailable(f"engine {engine!r} runs ONNX bundles: make one with `pi-dynn export --format onnx`")
    if engine not in ("auto", ONNXRUNTIME):
        raise EngineUnavailable(f"the bundle holds ONNX graphs: engine {engine!r} cannot run them, leave it out")
    files = bundle.network_files()
    graphs = [files[stage_file(k)] for k in range(len(bundle.manifest.exit_blocks) + 1)]
    return OnnxNetwork(graphs, threads)


class OnnxNetwork:
    """Runs the stages of a sample in order until the score of an exit reaches its threshold.

    A stage's graph gives (features, logits, gate value), the last one logits alone.
    """

    def __init__(self, graphs: list[bytes], threads: int) -> None:
        """Raises: EngineUnavailable without ONNX Runtime, BundleError for a graph it cannot load."""
        self._graphs, self._made = graphs, {threads: _stages(graphs, threads)}
        self._stages = self._made[threads]
        self._inputs = [stage.get_inputs()[0].name for stage in self._stages]
        self.exits = len(graphs) - 1

    def set_threads(self, threads: int) -> None:
        """Compute with so many threads from now on."""
        if threads not in self._made:
            self._made[threads] = _stages(self._graphs, threads)
        self._stages = self._made[threads]

    def __call__(self, x: "np.ndarray | Tensor", thresholds: list[float]) -> Answer:
        """Answer one image (1, 3, H, W) at the first exit whose score reaches its threshold (K of them)."""
        features = self.start(x)
        for k, threshold in enumerate(thresholds):
            features, logits, score = self.advance(features, k)
            if score >= threshold:
                return logits, k, score
        return self.advance(features, self.exits)[1], self.exits, 1.0

    def forward_batch(
        self, x: "np.ndarray | Tensor", thresholds: list[float]
    ) -> tuple[np.ndarray, list[int], list[float]]:
        """Answer a batch (B, 3, H, W): logits (B, classes), exit index and score of each."""
        logits, indices, scores = zip(*(self(image[None], thresholds) for image in self.start(x)), strict=True)
        return np.concatenate(logits), list(indices), list(scores)

    def forward_all(self, x: "np.ndarray | Tensor") -> list[np.ndarray]:
        """Logits (B, classes) of every exit, the last answer included, without stopping early."""
        return self.forward_scored(x)[0]

    def forward_scored(self, x: "np.ndarray | Tensor") -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Logits (B, classes) and scores (B,) of every exit, the last answer included."""
        logits: list[list[np.ndarray]] = [[] for _ in range(self.exits + 1)]
        scores: list[list[float]] = [[] for _ in range(self.exits + 1)]
        for image in self.start(x):
            features = image[None]
            for k in range(self.exits + 1):
                features, row, score = self.advance(features, k)
                logits[k].append(row)
                scores[k].append(score)
        return [np.concatenate(rows) for rows in logits], [np.array(values) for values in scores]

    def start(self, x: "np.ndarray | Tensor") -> np.ndarray:
        """The input of stage 0, which is the image, because the stem is part of that stage; tensors are taken, too."""
        return np.asarray(x)

    def advance(self, features: Any, index: int) -> tuple[Any, np.ndarray, float]:
        """Run stage `index` (0..K) for one image: features, logits (1, classes), score."""
        outputs = self._stages[index].run(None, {self._inputs[index]: features})
        if index == self.exits:
            return features, outputs[0], 1.0
        # float64, like the other engines, so that a threshold means the same
        return outputs[0], outputs[1], _sigmoid(float(outputs[2][0]))


def _stages(graphs: list[bytes], threads: int) -> list[Any]:
    """ONNX Runtime's session of each graph. Raises: EngineUnavailable, BundleError."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Each stage has its own threads: those of the stage before must not keep spinning.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return [onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]) for graph in graphs]
    except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
        raise BundleError(f"ONNX Runtime cannot load the bundle ({str(error).splitlines()[0]})") from error


def _sigmoid(x: float) -> float:
    small = math.exp(-abs(x))
    return (1.0 if x >= 0.0 else small) / (1.0 + small)

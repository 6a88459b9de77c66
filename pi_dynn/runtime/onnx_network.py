"""A bundle's network on ONNX Runtime, with the methods of the scripted one and one graph per stage.

Shape letters: B batch, K exits.
"""

from types import ModuleType

import torch
from torch import Tensor

from pi_dynn.errors import BundleError, EngineUnavailable, need_extra
from pi_dynn.runtime.bundle import Bundle

ONNX = "onnx"  # the format in a manifest
ONNXRUNTIME = "onnxruntime"  # the engine
FULL_DEPTH = "full_depth.onnx"  # for other programs: image to last logits, no exits

Answer = tuple[Tensor, int, float]  # logits (1, classes), exit index, score


def stage_file(k: int) -> str:
    """The name of the graph of stage `k` in a bundle."""
    return f"stage{k}.onnx"


def import_onnxruntime() -> ModuleType:
    """ONNX Runtime. Raises EngineUnavailable if it is not installed."""
    with need_extra("onnx", "engine 'onnxruntime'", EngineUnavailable):
        import onnxruntime
    runtime: ModuleType = onnxruntime
    return runtime


def open_onnx(bundle: Bundle, engine: str) -> "OnnxNetwork":
    """The network of an ONNX bundle, with as many threads as torch has.

    Raises: EngineUnavailable for another engine, another kind of bundle, or without ONNX Runtime.
    """
    if bundle.manifest.format != ONNX:
        raise EngineUnavailable(f"engine {engine!r} runs ONNX bundles: make one with `pi-dynn export --format onnx`")
    if engine not in ("auto", ONNXRUNTIME):
        raise EngineUnavailable(f"the bundle holds ONNX graphs: engine {engine!r} cannot run them, leave it out")
    files = bundle.network_files()
    graphs = [files[stage_file(k)] for k in range(len(bundle.manifest.exit_blocks) + 1)]
    return OnnxNetwork(graphs, torch.get_num_threads())


class OnnxNetwork:
    """Runs the stages of a sample in order until the score of an exit reaches its threshold.

    A stage's graph gives (features, logits, gate value), the last one logits alone.
    """

    def __init__(self, graphs: list[bytes], threads: int) -> None:
        """Raises: EngineUnavailable without ONNX Runtime, BundleError for a graph it cannot load."""
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Each stage has its own threads: those of the stage before must not keep spinning.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._stages = [
                onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]) for graph in graphs
            ]
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise BundleError(f"ONNX Runtime cannot load the bundle ({str(error).splitlines()[0]})") from error
        self._inputs = [stage.get_inputs()[0].name for stage in self._stages]
        self.exits = len(graphs) - 1

    def __call__(self, x: Tensor, thresholds: list[float]) -> Answer:
        """Answer one image (1, 3, H, W) at the first exit whose score reaches its threshold (K of them)."""
        features = x
        for k, threshold in enumerate(thresholds):
            features, logits, score = self.advance(features, k)
            if float(score) >= threshold:
                return logits, k, float(score)
        return self.advance(features, self.exits)[1], self.exits, 1.0

    def forward_batch(self, x: Tensor, thresholds: list[float]) -> tuple[Tensor, Tensor, Tensor]:
        """Answer a batch (B, 3, H, W): logits (B, classes), exit index (B,) and score (B,)."""
        logits, indices, scores = zip(*(self(image, thresholds) for image in x.split(1)), strict=True)
        return torch.cat(logits), torch.tensor(indices), torch.tensor(scores, dtype=torch.float64)

    def forward_all(self, x: Tensor) -> list[Tensor]:
        """Logits (B, classes) of every exit, the last answer included, without stopping early."""
        return self.forward_scored(x)[0]

    def forward_scored(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (B, classes) and scores (B,) of every exit, the last answer included."""
        rows = []
        for features in x.split(1):
            row = []
            for k in range(self.exits + 1):
                features, logits, score = self.advance(features, k)
                row.append((logits, score))
            rows.append(row)
        columns = list(zip(*rows, strict=True))
        of_all = [tuple(torch.cat(parts) for parts in zip(*column, strict=True)) for column in columns]
        return [logits for logits, _ in of_all], [score for _, score in of_all]

    def start(self, x: Tensor) -> Tensor:
        """The input of stage 0, which is the image, because the stem is part of that stage."""
        return x

    def advance(self, features: Tensor, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Run stage `index` (0..K) for one image: features, logits (1, classes), score (1,)."""
        outputs = self._stages[index].run(None, {self._inputs[index]: features.numpy()})
        tensors = [torch.from_numpy(output) for output in outputs]
        if index == self.exits:
            return features, tensors[0], torch.ones(1, dtype=torch.float64)
        # float64, like the other engines, so that a threshold means the same
        return tensors[0], tensors[1], torch.sigmoid(tensors[2].double())

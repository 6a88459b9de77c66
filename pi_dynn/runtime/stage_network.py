"""A bundle's network as graphs, one per stage, with the methods of the scripted one. Imports no torch.

Which exit answers is decided between the graphs, outside of them. Shape letters: B batch, K exits.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pi_dynn.errors import EngineUnavailable
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.forms import FORM_NAMES, LITERT, ONNX

if TYPE_CHECKING:
    from torch import Tensor

ONNXRUNTIME = "onnxruntime"
ENGINE_OF_GRAPHS = {ONNX: ONNXRUNTIME, LITERT: LITERT}  # LiteRT's engine has the name of the form

Answer = tuple[np.ndarray, int, float]  # logits (1, classes), exit index, score
Stage = Callable[[Any], tuple[Any, np.ndarray, float | None]]
"""From the features of the stage before to features, logits (1, classes) and the gate's value before the sigmoid; the
last stage has neither features nor gate."""


class StageNetwork:
    """Runs the stages of a sample in order until the score of an exit reaches its threshold.

    How a graph becomes a Stage is up to a class for each engine, in `open_stages`.
    """

    def __init__(self, graphs: list[bytes], threads: int) -> None:
        """Raises: EngineUnavailable without the engine, BundleError for a graph it cannot load."""
        self._graphs, self._opened = graphs, {threads: self.open_stages(graphs, threads)}
        self._stages = self._opened[threads]
        self.exits = len(graphs) - 1

    def open_stages(self, graphs: list[bytes], threads: int) -> list[Stage]:
        """What runs each graph, with so many threads."""
        raise NotImplementedError

    def set_threads(self, threads: int) -> None:
        """Compute with so many threads from now on."""
        if threads not in self._opened:
            self._opened[threads] = self.open_stages(self._graphs, threads)
        self._stages = self._opened[threads]

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
        features, logits, value = self._stages[index](features)
        return features, logits, 1.0 if value is None else _sigmoid(value)


def form_of_engine(engine: str) -> str | None:
    """The form of the graphs that an engine runs; None for one of TorchScript, and for "auto"."""
    return next((form for form, name in ENGINE_OF_GRAPHS.items() if name == engine), None)


def open_graphs(bundle: Bundle, engine: str, threads: int) -> StageNetwork:
    """The network of a bundle of graphs.

    Raises: EngineUnavailable for another engine, another kind of bundle, or without that engine.
    """
    form, wanted = bundle.manifest.format, form_of_engine(engine)
    if wanted not in (None, form):
        raise EngineUnavailable(
            f"engine {engine!r} runs {FORM_NAMES[wanted]} bundles: make one with `pi-dynn export --format {wanted}`"
        )
    if wanted is None and engine != "auto":
        raise EngineUnavailable(
            f"the bundle holds {FORM_NAMES[form]} graphs: engine {engine!r} cannot run them, leave it out"
        )
    if form == ONNX:
        from pi_dynn.runtime.onnx_network import open_onnx

        return open_onnx(bundle, threads)
    from pi_dynn.runtime.litert_network import open_litert

    return open_litert(bundle, threads)


def _sigmoid(x: float) -> float:
    small = math.exp(-abs(x))
    return (1.0 if x >= 0.0 else small) / (1.0 + small)

"""The Session, which answers images with a bundle's network."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pi_dynn.calibrate.reject import similarity
from pi_dynn.calibrate.scores import softmax
from pi_dynn.clock import Clock, PerfClock
from pi_dynn.data.prefetch import prefetch
from pi_dynn.data.preprocess import AnyImage
from pi_dynn.errors import BundleError, EngineUnavailable, InputError
from pi_dynn.records import NEVER, Prediction
from pi_dynn.runtime.bundle import Bundle, load_bundle
from pi_dynn.runtime.stage_network import ENGINE_OF_GRAPHS, StageNetwork, form_of_engine, open_graphs
from pi_dynn.runtime.thread_choice import cached_threads, fastest_threads, most_threads
from pi_dynn.runtime.thresholds import enabled_exits, resolve_thresholds

if TYPE_CHECKING:
    from torch import Tensor

    from pi_dynn.runtime.timed_network import TimedNetwork
    from pi_dynn.runtime.torchscript import ScriptedNetwork

Key = TypeVar("Key")
# Images of a batch that run at once. More do not fit into the caches: with 64 an image took 1.5 times as long.
RUN_TOGETHER = 16


class Session:
    """A loaded network with its threads and engine, warmed up at every depth. Graphs need no torch.

    `exits` are the blocks whose exits are enabled, of those that the bundle has; None enables all.

    Answers that look like none of the classes are marked so if the bundle tells how; `accept_all` leaves that out.

    `on_timing` is called before engines or threads are timed, which takes seconds and is done once for a bundle.

    Attributes: bundle, manifest, preprocess, engine (the one chosen), threads, enabled (one flag per exit),
    rejection (None where every answer is accepted).

    Raises: EngineUnavailable, BundleError; InputError for threads < 1 or exits the bundle lacks.
    """

    def __init__(
        self,
        bundle: Bundle | None = None,
        threads: int | None = None,
        engine: str = "auto",
        clock: Clock | None = None,
        exits: Sequence[int] | None = None,
        accept_all: bool = False,
        on_timing: Callable[[], object] = lambda: None,
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads={threads}: give 1 or more, or leave it out to have them chosen")
        self.bundle = bundle or load_bundle()
        self.manifest = self.bundle.manifest
        self.preprocess = self.manifest.preprocess
        # Graphs are opened for a number of threads; a scripted network may get another at any time.
        graph_engine = ENGINE_OF_GRAPHS.get(self.manifest.format, "")
        self.threads = threads or cached_threads(self.bundle.sha256, graph_engine) or most_threads()
        self._clock = clock or PerfClock()
        self.engine, self._network = self._open(engine, on_timing)
        self.exits = len(self.manifest.exit_blocks)
        self.enabled = enabled_exits(self.manifest, exits)
        self.rejection = None if accept_all else self.manifest.rejection
        self._class_means = None if self.rejection is None else np.array(self.rejection.class_means)
        self._warm_up()
        if threads is None:
            x, limits, of = self._blank(), self.forced_thresholds(self.exits), self.bundle.sha256
            if cached_threads(of, self.engine) is None:
                on_timing()
            self.threads = fastest_threads(self._network, lambda: self.answer(x, limits), of, self.engine, self._clock)

    def _open(self, engine: str, on_timing: Callable[[], object]) -> "tuple[str, StageNetwork | ScriptedNetwork]":
        """The chosen engine and the network on it; torch is imported for a scripted one only."""
        if self.manifest.format in ENGINE_OF_GRAPHS or form_of_engine(engine) is not None:
            network = open_graphs(self.bundle, engine, self.threads)
            return ENGINE_OF_GRAPHS[self.manifest.format], network
        try:
            import torch
        except ModuleNotFoundError as error:
            raise EngineUnavailable(
                f"{self.bundle.source or 'the bundle'} is in TorchScript, which needs torch: run ./scripts/setup.sh "
                "without --lite, or make its LiteRT form elsewhere, by `pi-dynn export BUNDLE -o mine.tflite.zip`"
            ) from error

        from pi_dynn.runtime.engine_choice import open_network
        from pi_dynn.runtime.torchscript import ScriptedNetwork

        torch.set_num_threads(self.threads)
        name, module = open_network(self.bundle, engine, self._clock, on_timing)
        return name, ScriptedNetwork(module)

    def classify(
        self,
        image: AnyImage,
        thresholds: Sequence[float] | float | None = None,
        deadline_s: float | None = None,
        top: int = 1,
    ) -> Prediction:
        """The answer for one image.

        `thresholds` (one for all exits, or one each) replace the bundle's. After `deadline_s` seconds the image
        leaves at the next enabled exit, whatever its score; the first exit is always reached.

        Raises: InputError for an image or thresholds that cannot be used.
        """
        return self._classify(self.preprocess.array(image), self.resolve_thresholds(thresholds), deadline_s, top)

    def classify_many(
        self,
        images: Iterable[AnyImage],
        batch_size: int = 1,
        thresholds: Sequence[float] | float | None = None,
        top: int = 1,
    ) -> Iterator[Prediction]:
        """The answers in the order of `images`, which are decoded in the background.

        Raises: InputError at the first image that cannot be used; `answer_stream` continues instead.
        """
        for _, answer in self.answer_stream(enumerate(images), batch_size, thresholds, top=top):
            if isinstance(answer, InputError):
                raise answer
            yield answer

    def answer_stream(
        self,
        images: Iterable[tuple[Key, AnyImage | InputError]],
        batch_size: int = 1,
        thresholds: Sequence[float] | float | None = None,
        deadline_s: float | None = None,
        top: int = 1,
    ) -> Iterator[tuple[Key, Prediction | InputError]]:
        """The key of each image with its answer or the InputError in its place; order is kept.

        Images are decoded in the background. In a batch every sample leaves on its own, independent of the others.

        Raises: InputError for options that cannot be used, before the first image.
        """
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: give 1 or more")
        if batch_size > 1 and deadline_s is not None:
            raise InputError("a deadline is kept per image: use batch size 1 with it")
        limits = self.resolve_thresholds(thresholds)
        inputs = prefetch(images, self.preprocess.array, ahead=2 * batch_size + 1)
        if batch_size > 1:
            return self._answer_batches(inputs, batch_size, limits, top)
        return (
            (key, x if isinstance(x, InputError) else self._classify(x, limits, deadline_s, top)) for key, x in inputs
        )

    def answer(self, x: "np.ndarray | Tensor", thresholds: list[float]) -> tuple[np.ndarray, int, float]:
        """The network's output for one input (1, 3, H, W): logits (1, classes), exit index and score."""
        return self._network(x, thresholds)

    def answer_batch(
        self, x: "np.ndarray | Tensor", thresholds: list[float]
    ) -> tuple[np.ndarray, list[int], list[float]]:
        """The network's output for inputs (B, 3, H, W): logits (B, classes), exit index and score of each."""
        return self._network.forward_batch(x, thresholds)

    def set_threads(self) -> None:
        """Let the thread that calls, which is not the one that made this session, compute with `threads` as well."""
        self._network.set_threads(self.threads)

    def timed_network(self, inside: bool = False) -> "TimedNetwork":
        """The same network with time stamps between its steps, or between the operations inside them, for profiling.

        Raises: EngineUnavailable for a network that is not TorchScript.
        """
        if isinstance(self._network, StageNetwork):
            raise EngineUnavailable(f"engine {self.engine} cannot be profiled: use a TorchScript bundle")
        from pi_dynn.runtime.timed_network import TimedNetwork

        return TimedNetwork(self._network.module, self.manifest, inside)

    def forward_all(self, x: "Tensor") -> "list[Tensor]":
        """Logits (B, classes) of every exit, the last answer included, for inputs (B, 3, H, W)."""
        return self.forward_scored(x)[0]

    def forward_scored(self, x: "Tensor") -> "tuple[list[Tensor], list[Tensor]]":
        """Logits (B, classes) and gate scores (B,) of every exit; the last answer's score is 1."""
        import torch

        logits, scores = self._network.forward_scored(x)
        return [torch.as_tensor(one) for one in logits], [torch.as_tensor(one) for one in scores]

    def resolve_thresholds(self, thresholds: Sequence[float] | float | None) -> list[float]:
        """One threshold per early exit: the given ones, one for all, or the bundle's own for None.

        An exit that is not enabled gets one that no score reaches.

        Raises: InputError for a wrong count or a value that is negative or not a number.
        """
        return resolve_thresholds(self.manifest, self.enabled, thresholds)

    def forced_thresholds(self, exit_index: int) -> list[float]:
        """Thresholds at which every image leaves at `exit_index` (the number of exits means full depth)."""
        return [0.0 if k == exit_index else NEVER for k in range(self.exits)]

    def _classify(self, x: np.ndarray, limits: list[float], deadline_s: float | None, top: int) -> Prediction:
        """The answer for one input (3, H, W)."""
        if deadline_s is not None:
            return self._classify_by(x[None], limits, deadline_s, top)
        start_ns = self._clock.now_ns()
        logits, exit_index, score = self.answer(x[None], limits)
        stop_ns = self._clock.now_ns()
        return self._prediction(logits[0], exit_index, score, (stop_ns - start_ns) / 1e9, top)

    def _classify_by(self, x: np.ndarray, limits: list[float], deadline_s: float, top: int) -> Prediction:
        start_ns = self._clock.now_ns()
        features = self._network.start(x)
        for k in range(self.exits + 1):
            features, logits, score = self._network.advance(features, k)
            elapsed_s = (self._clock.now_ns() - start_ns) / 1e9
            if k == self.exits or score >= limits[k] or (elapsed_s >= deadline_s and self.enabled[k]):
                break
        return self._prediction(logits[0], k, score, elapsed_s, top)

    def _answer_batches(
        self, inputs: Iterator[tuple[Key, np.ndarray | InputError]], batch_size: int, limits: list[float], top: int
    ) -> Iterator[tuple[Key, Prediction | InputError]]:
        pending: list[tuple[Key, np.ndarray | InputError]] = []
        for key, x in inputs:
            pending.append((key, x))
            if sum(isinstance(one, np.ndarray) for _, one in pending) == batch_size:
                yield from self._answer_batch(pending, limits, top)
                pending = []
        yield from self._answer_batch(pending, limits, top)

    def _answer_batch(
        self, pending: list[tuple[Key, np.ndarray | InputError]], limits: list[float], top: int
    ) -> Iterator[tuple[Key, Prediction | InputError]]:
        good = [x for _, x in pending if isinstance(x, np.ndarray)]
        answers = (
            answer
            for start in range(0, len(good), RUN_TOGETHER)
            for answer in self._run_together(good[start : start + RUN_TOGETHER], limits, top)
        )
        for key, x in pending:
            yield key, x if isinstance(x, InputError) else next(answers)

    def _run_together(self, images: list[np.ndarray], limits: list[float], top: int) -> Iterator[Prediction]:
        x = np.stack(images)
        start_ns = self._clock.now_ns()
        logits, exit_index, score = self.answer_batch(x, limits)
        share_s = (self._clock.now_ns() - start_ns) / 1e9 / len(images)
        for row in zip(logits, exit_index, score, strict=True):
            yield self._prediction(*row, share_s, top)

    def _prediction(self, logits: np.ndarray, exit_index: int, score: float, latency_s: float, top: int) -> Prediction:
        best = np.argsort(-logits, kind="stable")[: max(top, 1)]
        labels = [self.manifest.labels[i] for i in best]
        probabilities = softmax(logits.astype(np.float64))[best].tolist()
        likeness, accepted = None, True
        if self.rejection is not None and self._class_means is not None:
            likeness = float(similarity(logits[None], self._class_means[exit_index])[0])
            accepted = likeness >= self.rejection.limit
        return Prediction(
            label=labels[0],
            class_index=int(best[0]),
            probability=probabilities[0],
            exit_index=exit_index,
            block_index=self.manifest.blocks[exit_index],
            score=score,
            latency_s=latency_s,
            top=list(zip(labels, probabilities, strict=True)),
            accepted=accepted,
            similarity=likeness,
        )

    def _warm_up(self) -> None:
        """Run every depth once, because the first run of a layer packs, allocates and compiles."""
        try:
            for k in range(self.exits + 1):
                self.answer(self._blank(), self.forced_thresholds(k))
        except (RuntimeError, ValueError) as error:  # LiteRT raises the latter for another shape
            reason = str(error).strip().splitlines()[-1]
            raise BundleError(
                f"the network does not run on the images of {self.preprocess.size} px that its manifest promises "
                f"({reason}): export it again"
            ) from error

    def _blank(self) -> np.ndarray:
        return np.zeros((1, 3, self.preprocess.size, self.preprocess.size), np.float32)

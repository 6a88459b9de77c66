"""Classify a stream of images and keep count."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from pi_dynn.clock import Clock
from pi_dynn.data.sources import ImageSource
from pi_dynn.errors import InputError
from pi_dynn.records import ClassifySummary, Prediction
from pi_dynn.runtime.session import Session


@dataclass(frozen=True)
class ClassifySettings:
    """How to classify; None leaves a choice to the bundle."""

    batch_size: int = 1
    thresholds: list[float] | float | None = None
    deadline_s: float | None = None
    top: int = 1


class ClassifyRun:
    """One pass over images: iterate over it for the answers, then ask for the summary.

    The summary is right at any time, so an interrupted run loses nothing.
    """

    def __init__(
        self, session: Session, clock: Clock, sources: Iterable[ImageSource], settings: ClassifySettings
    ) -> None:
        self._session, self._clock, self._sources, self._settings = session, clock, sources, settings
        self._failed = 0
        self._exit_counts = [0] * (session.exits + 1)
        self._latency_s = 0.0
        self._start_ns = clock.now_ns()

    def __iter__(self) -> Iterator[tuple[ImageSource, Prediction | InputError]]:
        for source, answer in self._answers():
            if isinstance(answer, InputError):
                self._failed += 1
            else:
                self._exit_counts[answer.exit_index] += 1
                self._latency_s += answer.latency_s
            yield source, answer

    def summary(self, interrupted: bool = False) -> ClassifySummary:
        """Counts, throughput and exits up to now."""
        images = sum(self._exit_counts)
        elapsed_s = (self._clock.now_ns() - self._start_ns) / 1e9
        return ClassifySummary(
            images=images,
            failed=self._failed,
            elapsed_s=elapsed_s,
            images_per_s=images / elapsed_s if elapsed_s > 0 else 0.0,
            mean_latency_s=self._latency_s / images if images else None,
            exit_counts=self._exit_counts,
            exit_blocks=self._session.manifest.blocks,
            engine=self._session.engine,
            threads=self._session.threads,
            bundle=self._session.bundle.sha256,
            interrupted=interrupted,
        )

    def _answers(self) -> Iterator[tuple[ImageSource, Prediction | InputError]]:
        settings = self._settings
        return self._session.answer_stream(
            self._sources, self._load, settings.batch_size, settings.thresholds, settings.deadline_s, settings.top
        )

    def _load(self, source: ImageSource) -> Tensor:
        return self._session.preprocess.load(source.check())

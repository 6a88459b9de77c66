"""Classify a stream of images, by a calibration record if there is one, and keep count."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from pi_dynn.board import Board, decode_throttle
from pi_dynn.calibrate.adapt import CurveWalker, Strain
from pi_dynn.calibrate.drift import Drift, DriftWatch
from pi_dynn.calibrate.records import CalibrationRecord, OperatingPoint
from pi_dynn.calibrate.scores import GATE
from pi_dynn.classify.records import ClassifySummary
from pi_dynn.clock import Clock
from pi_dynn.data.prefetch import prefetch
from pi_dynn.data.sources import ImageSource
from pi_dynn.errors import CalibrationError, InputError
from pi_dynn.records import Prediction
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


@dataclass(frozen=True)
class Plan:
    """A record, and the point of its curve to work at."""

    record: CalibrationRecord
    point: OperatingPoint


def plan_of(record: CalibrationRecord, point: OperatingPoint | None = None) -> Plan:
    """The plan of a record, at its own thresholds unless a point of its curve is given.

    Raises: CalibrationError for a record of another score than the gate's, which is what a bundle computes.
    """
    if record.score != GATE:
        raise CalibrationError(
            f"the record's thresholds are for the score {record.score!r}, and a bundle stops by its gates: "
            "calibrate with --score gate, or build the score into a bundle with calibrate --fold"
        )
    return Plan(record, point or _own_point(record))


def _own_point(record: CalibrationRecord) -> OperatingPoint:
    return OperatingPoint(record.thresholds, record.accuracy, record.mean_cost, record.exit_rates, [])


def board_strain(board: Board, battery_percent: Callable[[], float | None] = lambda: None) -> Strain:
    """How the board fares now."""
    bits = board.live_throttle_bits()
    return Strain(board.temperature_c(), decode_throttle(bits).now if bits else (), battery_percent())


class PlannedRun(ClassifyRun):
    """A ClassifyRun by a plan: watches the exits for drift and, with a `strain`, moves along the record's curve.

    `on_drift` and `on_move` are told what happened, `on_move` the new point.
    """

    def __init__(
        self,
        session: Session,
        clock: Clock,
        sources: Iterable[ImageSource],
        settings: ClassifySettings,
        plan: Plan,
        *,
        strain: Callable[[], Strain] | None = None,
        on_drift: Callable[[Drift], None] = lambda drift: None,
        on_move: Callable[[OperatingPoint], None] = lambda point: None,
    ) -> None:
        settings = replace(settings, thresholds=plan.point.thresholds)
        super().__init__(session, clock, sources, settings)
        self._strain, self._on_drift, self._on_move = strain, on_drift, on_move
        self._walker = None if strain is None else CurveWalker(plan.record.curve, plan.point.mean_cost)
        self._point = plan.point if self._walker is None else self._walker.point
        self._watch = DriftWatch(self._point.exit_rates)

    def __iter__(self) -> Iterator[tuple[ImageSource, Prediction | InputError]]:
        for source, answer in super().__iter__():
            if not isinstance(answer, InputError):
                drift = self._watch.add(answer.exit_index)
                if drift is not None:
                    self._on_drift(drift)
            yield source, answer

    def _answers(self) -> Iterator[tuple[ImageSource, Prediction | InputError]]:
        if self._walker is None:
            yield from super()._answers()
            return
        # One image at a time: the thresholds may change between any two.
        for source, loaded in prefetch(self._sources, self._load):
            self._adapt()
            if isinstance(loaded, InputError):
                yield source, loaded
            else:
                limits, settings = self._point.thresholds, self._settings
                yield source, self._session.classify(loaded, limits, settings.deadline_s, settings.top)

    def _adapt(self) -> None:
        if self._walker.watch(self._strain(), self._clock.now_ns() / 1e9):
            self._point = self._walker.point
            self._watch.expect(self._point.exit_rates)
            self._on_move(self._point)

"""Classification of a stream of images, optionally by a calibration record, and counts of the answers."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pi_dynn.board import Board, decode_throttle
from pi_dynn.calibrate.adapt import BoardState, CurveWalker
from pi_dynn.calibrate.drift import Drift, DriftWatch
from pi_dynn.calibrate.records import CalibrationRecord, OperatingPoint
from pi_dynn.calibrate.scores import GATE
from pi_dynn.classify.records import ClassifySummary
from pi_dynn.clock import Clock
from pi_dynn.data.prefetch import prefetch
from pi_dynn.data.preprocess import AnyImage
from pi_dynn.errors import CalibrationError, InputError
from pi_dynn.records import Prediction
from pi_dynn.runtime.session import Session

if TYPE_CHECKING:
    from pi_dynn.classify.cluster import ClusterSession
    from pi_dynn.classify.swap import SwappingSession

Key = TypeVar("Key")


class Tally:
    """Counts the answers of a stream. The summary is valid at any time, also after an interrupt."""

    def __init__(self, session: "Session | ClusterSession | SwappingSession", clock: Clock) -> None:
        self._session, self._clock = session, clock
        self._failed = 0
        self._counts: Counter[int] = Counter()  # by block, because another bundle may take over
        self._latency_s = 0.0
        self._start_ns = clock.now_ns()

    def count(
        self, answers: Iterable[tuple[Key, Prediction | InputError]]
    ) -> Iterator[tuple[Key, Prediction | InputError]]:
        """The same answers, each counted."""
        for key, answer in answers:
            if isinstance(answer, InputError):
                self._failed += 1
            else:
                self._counts[answer.block_index] += 1
                self._latency_s += answer.latency_s
            yield key, answer

    def summary(self, interrupted: bool = False) -> ClassifySummary:
        """The summary of the answers so far."""
        images = self._counts.total()
        blocks = sorted({*self._session.manifest.blocks, *self._counts})
        elapsed_s = (self._clock.now_ns() - self._start_ns) / 1e9
        return ClassifySummary(
            images=images,
            failed=self._failed,
            elapsed_s=elapsed_s,
            images_per_s=images / elapsed_s if elapsed_s > 0 else 0.0,
            mean_latency_s=self._latency_s / images if images else None,
            exit_counts=[self._counts[block] for block in blocks],
            exit_blocks=blocks,
            engine=self._session.engine,
            threads=self._session.threads,
            bundle=self._session.bundle.sha256,
            interrupted=interrupted,
        )


@dataclass(frozen=True)
class Plan:
    """A calibration record, and the operating point in use."""

    record: CalibrationRecord
    point: OperatingPoint


def plan_of(record: CalibrationRecord, point: OperatingPoint | None = None) -> Plan:
    """The plan of a record, at its own thresholds unless a point of its curve is given.

    Raises: CalibrationError for a record of another score than the gate's, because a bundle computes only that.
    """
    if record.score != GATE:
        raise CalibrationError(
            f"the record's thresholds are for the score {record.score!r}, and a bundle leaves by its gates: "
            "calibrate with --score gate, or build the score into a bundle with calibrate --fold"
        )
    if point is None:
        point = OperatingPoint(record.thresholds, record.accuracy, record.mean_cost, record.exit_rates, [])
    return Plan(record, point)


def read_board_state(board: Board, battery_percent: Callable[[], float | None] = lambda: None) -> BoardState:
    """The current state of the board."""
    bits = board.live_throttle_bits()
    return BoardState(board.temperature_c(), decode_throttle(bits).now if bits else (), battery_percent())


def watched_for_drift(
    answers: Iterable[tuple[Key, Prediction | InputError]], watch: DriftWatch, on_drift: Callable[[Drift], None]
) -> Iterator[tuple[Key, Prediction | InputError]]:
    """The same answers; the callback `on_drift` reports a drift of their exits from those that `watch` expects."""
    for key, answer in answers:
        if isinstance(answer, Prediction):
            drift = watch.add(answer.exit_index)
            if drift is not None:
                on_drift(drift)
        yield key, answer


def adapted_answers(
    session: Session,
    images: Iterable[tuple[Key, AnyImage | InputError]],
    walker: CurveWalker,
    board_state: Callable[[], BoardState],
    clock: Clock,
    on_move: Callable[[OperatingPoint], None],
    deadline_s: float | None = None,
    top: int = 1,
) -> Iterator[tuple[Key, Prediction | InputError]]:
    """Answers with thresholds that get cheaper while the board is hot or its battery low.

    One image at a time, because thresholds may change between any two; `on_move` is the callback for each new point.
    """
    for key, x in prefetch(images, session.preprocess):
        if walker.watch(board_state(), clock.now_ns() / 1e9):
            on_move(walker.point)
        yield key, x if isinstance(x, InputError) else session.classify(x, walker.point.thresholds, deadline_s, top)

"""Continuous classification of the newest frame of a camera, a video or a folder."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from itertools import count

from pi_dynn.classify.records import ClassifySummary, EnergyFigure, WatchSummary
from pi_dynn.classify.swap import SwappingSession
from pi_dynn.classify.text import told_label
from pi_dynn.classify.unsure import UnsurePictures
from pi_dynn.clock import Clock
from pi_dynn.data.frames import Frame, FrameFeed
from pi_dynn.data.motion import MotionDetector
from pi_dynn.data.region import Region
from pi_dynn.errors import InputError
from pi_dynn.power.estimate import PowerModel
from pi_dynn.records import Prediction
from pi_dynn.runtime.session import Session

BEAT_S = 1.0  # the loop does nothing for longer than that without a sign of life


def paced_frames(
    feed: FrameFeed,
    clock: Clock,
    every_s: float = 0.0,
    limit: int | None = None,
    beat: Callable[[], object] = lambda: None,
) -> Iterator[Frame]:
    """The newest frame every `every_s` seconds, or without a pause for 0; frames are never queued.

    Seconds count from frame to frame, so there is no burst after a delay. `limit` is the greatest number of frames.
    The callback `beat` is called before each frame, and every BEAT_S seconds while one is waited for.

    Raises: InputError for a pause below zero, before the first frame.
    """
    if not every_s >= 0.0:
        raise InputError(f"every_s={every_s}: give 0 for no pause, or seconds")
    return _paced(feed, clock, round(every_s * 1e9), limit, beat)


def _paced(
    feed: FrameFeed, clock: Clock, every_ns: int, limit: int | None, beat: Callable[[], object]
) -> Iterator[Frame]:
    due_ns = clock.now_ns()
    for _ in count() if limit is None else range(limit):
        while (wait_ns := due_ns - clock.now_ns()) > 0 and not feed.ended:
            beat()
            feed.rest(min(wait_ns * 1e-9, BEAT_S))
        beat()
        while (frame := feed.take(BEAT_S)) is None:
            if feed.ended:
                return
            beat()
        due_ns = clock.now_ns() + every_ns
        yield frame


def cropped_frames(frames: Iterable[Frame], region: Region) -> Iterator[Frame]:
    """The same frames, each with that region as its picture, or with the InputError in its place."""
    for frame in frames:
        try:
            yield frame if isinstance(frame.image, InputError) else replace(frame, image=region.of(frame.image))
        except InputError as error:
            yield replace(frame, image=error)


def moved_frames(
    frames: Iterable[Frame], detector: MotionDetector, wanted: Callable[[], bool] = lambda: False
) -> Iterator[Frame]:
    """The frames that moved, those without a picture, and all while `wanted()`; the detector counts the others."""
    for frame in frames:
        try:
            if isinstance(frame.image, InputError) or detector.moved(frame.image, frame.taken_ns, wanted()):
                yield frame
        except InputError as error:
            yield replace(frame, image=error)


def frame_answers(
    session: Session | SwappingSession,
    frames: Iterable[Frame],
    thresholds: Callable[[], list[float]] | list[float] | float | None = None,
    deadline_s: float | None = None,
    top: int = 1,
) -> Iterator[tuple[Frame, Prediction | InputError]]:
    """Each frame with its answer, or the InputError in its place; answered before the next frame is taken.

    `thresholds` that may change are a callback, asked before each answer.
    """
    for frame in frames:
        try:
            if isinstance(frame.image, InputError):
                raise frame.image
            limits = thresholds() if callable(thresholds) else thresholds
            answer: Prediction | InputError = session.classify(frame.image, limits, deadline_s, top)
        except InputError as error:
            answer = error
        yield frame, answer


class Agreement:
    """Holds a change of the label back until `times` answers running have the new one.

    Attributes: held_back (answers).
    """

    def __init__(self, times: int = 1) -> None:
        self._times, self.held_back = times, 0
        self._told: str | None = None
        self._next, self._running = "", 0

    def pending(self) -> bool:
        """Whether a change is held back, and further answers would decide on it."""
        return self._running > 0

    def agreed(
        self, answers: Iterable[tuple[Frame, Prediction | InputError]]
    ) -> Iterator[tuple[Frame, Prediction | InputError]]:
        """The answers that are told; errors are."""
        for frame, answer in answers:
            if isinstance(answer, InputError) or self._tells(told_label(answer)):
                yield frame, answer

    def _tells(self, label: str) -> bool:
        if label != self._told:
            self._running = self._running + 1 if label == self._next else 1
            self._next = label
            if self._running < self._times:
                self.held_back += 1
                return False
        self._told, self._next, self._running = label, "", 0
        return True


def saving_unsure(
    answers: Iterable[tuple[Frame, Prediction | InputError]], pictures: UnsurePictures
) -> Iterator[tuple[Frame, Prediction | InputError]]:
    """The same answers; pictures of unsure ones are saved."""
    for frame, answer in answers:
        if isinstance(answer, Prediction):
            pictures.offer(frame, answer)
        yield frame, answer


def saved_energy(skipped: int, mean_latency_s: float | None, cores_share: float, model: PowerModel) -> EnergyFigure:
    """What the network would have drawn for the skipped frames by a board's power model: an estimate.

    `cores_share` (0..1) is the share of the board's cores that an answer keeps busy. The detector's own work, and the
    preprocessing that it saved, are left out.
    """
    busy_s = skipped * (mean_latency_s or 0.0)
    return EnergyFigure(net_j=busy_s * cores_share * (model.full_w - model.idle_w), scope=model.scope)


def watch_summary(
    summary: ClassifySummary,
    feed: FrameFeed,
    detector: MotionDetector | None = None,
    agreement: Agreement | None = None,
) -> WatchSummary:
    """The summary of the answers with the counts of the feed's frames."""
    return WatchSummary(
        **asdict(summary),
        source=feed.name,
        frames=feed.seen,
        dropped=feed.dropped,
        reconnects=feed.reconnects,
        skipped=0 if detector is None else detector.skipped,
        held_back=0 if agreement is None else agreement.held_back,
    )

"""Classify what a source shows now, again and again."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import count

from pi_dynn.classify.records import WatchSummary
from pi_dynn.classify.run import ClassifyRun, ClassifySettings
from pi_dynn.clock import Clock
from pi_dynn.data.frames import Frame, FrameFeed
from pi_dynn.errors import InputError
from pi_dynn.records import Prediction
from pi_dynn.runtime.session import Session


class WatchRun(ClassifyRun):
    """A ClassifyRun over a feed: iterate over it for frames with answers, then ask for the summary.

    Every `every_s` seconds, or without a pause for 0, the newest frame is answered; frames are never waiting.
    The seconds count from frame to frame, so that none is made up for after a delay. `most` ends it after so many.
    """

    def __init__(
        self,
        session: Session,
        clock: Clock,
        feed: FrameFeed,
        settings: ClassifySettings,
        *,
        every_s: float = 0.0,
        most: int | None = None,
    ) -> None:
        """Raises: InputError for a pause below zero."""
        if not every_s >= 0.0:
            raise InputError(f"every_s={every_s}: give 0 for no pause, or seconds")
        super().__init__(session, clock, (), settings)
        self._feed, self._every_s, self._most = feed, every_s, most

    def summary(self, interrupted: bool = False) -> WatchSummary:
        """Counts, throughput, exits and dropped frames up to now."""
        feed = self._feed
        return WatchSummary(
            **asdict(super().summary(interrupted)),
            source=feed.name,
            frames=feed.seen,
            dropped=feed.dropped,
            reconnects=feed.reconnects,
        )

    def _answers(self) -> Iterator[tuple[Frame, Prediction | InputError]]:
        due_ns = self._clock.now_ns()
        for _ in count() if self._most is None else range(self._most):
            wait_ns = due_ns - self._clock.now_ns()
            if wait_ns > 0:
                self._feed.rest(wait_ns * 1e-9)
            frame = self._feed.take()
            if frame is None:
                return
            due_ns = self._clock.now_ns() + round(self._every_s * 1e9)
            yield frame, self._answer(frame)

    def _answer(self, frame: Frame) -> Prediction | InputError:
        if isinstance(frame.image, InputError):
            return frame.image
        settings = self._settings
        try:
            return self._session.classify(frame.image, settings.thresholds, settings.deadline_s, settings.top)
        except InputError as error:
            return error

"""Continuous classification of the newest frame of a camera, a video or a folder."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import count

from pi_dynn.classify.records import ClassifySummary, WatchSummary
from pi_dynn.clock import Clock
from pi_dynn.data.frames import Frame, FrameFeed
from pi_dynn.errors import InputError
from pi_dynn.records import Prediction
from pi_dynn.runtime.session import Session


def paced_frames(feed: FrameFeed, clock: Clock, every_s: float = 0.0, limit: int | None = None) -> Iterator[Frame]:
    """The newest frame every `every_s` seconds, or without a pause for 0; frames are never queued.

    Seconds count from frame to frame, so there is no burst after a delay. `limit` is the greatest number of frames.

    Raises: InputError for a pause below zero, before the first frame.
    """
    if not every_s >= 0.0:
        raise InputError(f"every_s={every_s}: give 0 for no pause, or seconds")
    return _paced(feed, clock, round(every_s * 1e9), limit)


def _paced(feed: FrameFeed, clock: Clock, every_ns: int, limit: int | None) -> Iterator[Frame]:
    due_ns = clock.now_ns()
    for _ in count() if limit is None else range(limit):
        wait_ns = due_ns - clock.now_ns()
        if wait_ns > 0:
            feed.rest(wait_ns * 1e-9)
        frame = feed.take()
        if frame is None:
            return
        due_ns = clock.now_ns() + every_ns
        yield frame


def frame_answers(
    session: Session,
    frames: Iterable[Frame],
    thresholds: list[float] | float | None = None,
    deadline_s: float | None = None,
    top: int = 1,
) -> Iterator[tuple[Frame, Prediction | InputError]]:
    """Each frame with its answer, or the InputError in its place; answered before the next frame is taken."""
    for frame in frames:
        try:
            if isinstance(frame.image, InputError):
                raise frame.image
            answer: Prediction | InputError = session.classify(frame.image, thresholds, deadline_s, top)
        except InputError as error:
            answer = error
        yield frame, answer


def watch_summary(summary: ClassifySummary, feed: FrameFeed) -> WatchSummary:
    """The summary of the answers with the counts of the feed's frames."""
    return WatchSummary(
        **asdict(summary),
        source=feed.name,
        frames=feed.seen,
        dropped=feed.dropped,
        reconnects=feed.reconnects,
    )

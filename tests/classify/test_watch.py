"""A watch: its schedule on a fake clock, and its answers on real sources."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_dynn.classify.records import WatchSummary
from pi_dynn.classify.run import Tally
from pi_dynn.classify.watch import frame_answers, paced_frames, watch_summary
from pi_dynn.clock import FakeClock, PerfClock
from pi_dynn.data.fake_camera import FakeCamera
from pi_dynn.data.frames import CaptureFeed, FrameFeed
from pi_dynn.data.watch_sources import open_feed
from pi_dynn.errors import InputError
from pi_dynn.records import Prediction
from pi_dynn.runtime.session import Session
from tests.data.test_decode import BAD_FILES
from tests.mosquitto import wait_until

PICTURE = np.zeros((40, 50, 3), np.uint8)


@pytest.fixture(scope="module")
def session(tiny_bundle):
    return Session(tiny_bundle, threads=1, engine="fp32")


class SimulatedFeed(FrameFeed):
    """A camera on a FakeClock with a frame every `period_s`; waiting advances the clock."""

    def __init__(self, clock: FakeClock, period_s: float, frames: int = 1000) -> None:
        super().__init__("simulated", clock)
        self._period_ns, self._frames, self.taken_s = round(period_s * 1e9), frames, []

    def _begin(self) -> None:
        number = self._clock.now_ns() // self._period_ns  # the next one to come
        self._clock.advance(((number + 1) * self._period_ns - self._clock.now_ns()) * 1e-9)
        self.seen = min(number, self._frames)
        if number >= self._frames:
            self._end()
        else:
            self.taken_s.append(self._clock.now_ns() * 1e-9)
            self._arrived(self.name, lambda: PICTURE)

    def rest(self, duration_s: float) -> None:
        self._clock.advance(duration_s)


class SlowSession:
    """A session that takes `latency_s` of a FakeClock for an answer."""

    def __init__(self, session: Session, clock: FakeClock, latency_s: float) -> None:
        self._session, self._clock, self._latency_s = session, clock, latency_s

    def classify(self, *arguments) -> Prediction:
        self._clock.advance(self._latency_s)
        return self._session.classify(*arguments)

    def __getattr__(self, name):
        return getattr(self._session, name)


class Watch:
    """A watch as the command puts it together: frames with answers, and a summary at any time."""

    def __init__(self, session, clock, feed, every_s=0.0, limit=None, top=1) -> None:
        self._tally, self._feed = Tally(session, clock), feed
        self._frames = paced_frames(feed, clock, every_s, limit)
        self._answers = self._tally.count(frame_answers(session, self._frames, top=top))

    def __iter__(self):
        return self._answers

    def summary(self) -> WatchSummary:
        return watch_summary(self._tally.summary(), self._feed)


def simulated(session, latency_s: float, every_s: float, limit: int = 6):
    clock = FakeClock()
    feed = SimulatedFeed(clock, 0.1)
    slow = SlowSession(session, clock, latency_s)
    run = Watch(slow, clock, feed, every_s, limit)
    return feed, [frame.number for frame, _ in run], run.summary()


@pytest.mark.parametrize(
    ("latency_s", "every_s", "numbers"),
    [
        (0.01, 0.0, [0, 1, 2, 3, 4, 5]),  # faster than the camera: every frame
        (0.25, 0.0, [0, 3, 6, 9, 12, 15]),  # slower: those that came meanwhile are dropped
        (0.01, 1.0, [0, 11, 22, 33, 44, 55]),  # a pause: the frame that comes when it is over
        (0.25, 0.2, [0, 3, 6, 9, 12, 15]),  # a pause that cannot be kept
    ],
)
def test_the_schedule(session, latency_s, every_s, numbers):
    feed, answered, summary = simulated(session, latency_s, every_s)
    assert answered == numbers
    assert (summary.images, summary.frames, summary.dropped) == (6, feed.seen, feed.seen - 6)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_answers_are_at_least_the_pause_apart_and_no_later_than_needed(session, latency_s, every_s):
    feed, numbers, _ = simulated(session, latency_s, every_s)
    assert numbers == sorted(set(numbers))
    gaps = np.diff(feed.taken_s)
    assert (gaps >= max(latency_s, every_s) - 1e-6).all()
    assert (gaps <= max(latency_s, every_s) + 0.1 + 1e-6).all()  # the next frame of the camera


def test_a_delay_is_not_made_up_for(session):
    clock = FakeClock()
    feed = SimulatedFeed(clock, 0.1)
    run = iter(Watch(session, clock, feed, every_s=1.0))
    for i in range(6):
        next(run)
        clock.advance(5.0 if i == 2 else 0.0)
    np.testing.assert_allclose(np.diff(feed.taken_s), [1.1, 1.1, 5.1, 1.1, 1.1], atol=1e-6)


def test_the_end_of_the_source_is_the_end(session):
    clock = FakeClock()
    run = Watch(session, clock, SimulatedFeed(clock, 0.1, frames=4))
    assert len(list(run)) == 4
    summary = run.summary()
    assert (summary.images, summary.dropped, summary.interrupted) == (4, 0, False)
    assert WatchSummary.from_dict(summary.to_dict()) == summary
    with pytest.raises(InputError, match="every_s=-1"):
        paced_frames(SimulatedFeed(clock, 0.1), clock, every_s=-1.0)


def test_bad_files_are_errors_and_the_watch_goes_on(session, tmp_path, photographs):
    pytest.importorskip("watchdog")
    with open_feed(str(tmp_path), PerfClock()) as feed:
        run = Watch(session, PerfClock(), feed, top=2)
        answers = iter(run)
        for name, (content, _) in BAD_FILES.items():
            (tmp_path / f"{name}.jpg").write_bytes(content)
            frame, answer = next(answers)
            assert isinstance(answer, InputError) and str(answer).startswith(frame.name)
            shutil.copy(photographs / "photograph2.jpg", tmp_path)
            frame, answer = next(answers)
            assert answer.label == session.classify(photographs / "photograph2.jpg").label and len(answer.top) == 2
            (tmp_path / "photograph2.jpg").unlink()
        shutil.copy(photographs / "photograph3.jpg", tmp_path)
        wait_until(lambda: feed.seen == 2 * len(BAD_FILES) + 1)
        (tmp_path / "photograph3.jpg").unlink()  # finished, and gone before its turn
        _, answer = next(answers)
        assert isinstance(answer, InputError) and "no such file" in str(answer)
    summary = run.summary()
    assert (summary.images, summary.failed, summary.dropped) == (len(BAD_FILES), len(BAD_FILES) + 1, 0)


def test_only_the_newest_of_many_files_is_answered(session, tmp_path, photographs):
    pytest.importorskip("watchdog")
    with open_feed(str(tmp_path), PerfClock()) as feed:
        for i in range(6):
            shutil.copy(photographs / f"photograph{i}.jpg", tmp_path)
        wait_until(lambda: feed.seen == 6)
        run = Watch(session, PerfClock(), feed, limit=1)
        ((frame, answer),) = run
    assert frame.image.name == "photograph5.jpg" and frame.number == 5
    assert answer.class_index == session.classify(photographs / "photograph5.jpg").class_index
    assert run.summary().dropped == 5


def test_a_camera_that_comes_back_is_counted(session):
    clock = PerfClock()
    camera = FakeCamera(clock, 0.005)
    with CaptureFeed("fake", camera.open, clock, delays_s=lambda: iter([0.01] * 1000)) as feed:
        run = Watch(session, clock, feed)
        answers = iter(run)
        next(answers)
        camera.unplug()
        wait_until(lambda: camera.released == 1)
        camera.plug_in()
        before = run.summary().images
        for _ in range(3):
            assert isinstance(next(answers)[1], Prediction)
    assert run.summary().reconnects == 1 and run.summary().images == before + 3

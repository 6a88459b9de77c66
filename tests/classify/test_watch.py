"""A watch: its schedule on a fake clock, and its answers on real sources."""

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_dynn.classify.records import WatchSummary
from pi_dynn.classify.run import Tally
from pi_dynn.classify.text import watch_line
from pi_dynn.classify.watch import (
    BEAT_S,
    Agreement,
    cropped_frames,
    frame_answers,
    moved_frames,
    paced_frames,
    saved_energy,
    watch_summary,
)
from pi_dynn.clock import FakeClock, PerfClock
from pi_dynn.data.fake_camera import FakeCamera
from pi_dynn.data.frames import CaptureFeed, Frame, FrameFeed
from pi_dynn.data.motion import MotionDetector
from pi_dynn.data.region import Region
from pi_dynn.data.watch_sources import open_feed
from pi_dynn.errors import InputError
from pi_dynn.power.estimate import PowerModel
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


@settings(max_examples=40)
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


def test_files_of_a_new_folder_are_counted_once_whenever_they_were_closed(tmp_path, photographs, monkeypatch):
    pytest.importorskip("watchdog")
    monkeypatch.setattr("pi_dynn.data.folder_frames.SETTLED_S", 0.3)
    watched, new = tmp_path / "watched", tmp_path / "new"
    watched.mkdir()
    shutil.copytree(photographs, new / "inner")
    counted: list[str] = []
    with open_feed(str(watched), PerfClock()) as feed, (new / "slow.jpg").open("wb") as slow:
        monkeypatch.setattr(feed, "_arrived", lambda name, load, keep: counted.append(name))
        new.rename(watched / "new")  # the kernel tells nothing of the files in it
        slow.write(b"still being written")
        slow.close()
        wait_until(lambda: len(counted) == 7)
        shutil.copytree(photographs, watched / "copied" / "inner")
        wait_until(lambda: len(counted) == 13)
        time.sleep(0.6)
    assert len(set(counted)) == len(counted) == 13


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


def test_there_is_a_sign_of_life_every_second_whatever_is_waited_for(session):
    clock = FakeClock()
    beats_s: list[float] = []
    feed = SimulatedFeed(clock, 0.1)
    for _ in paced_frames(feed, clock, 60.0, 3, lambda: beats_s.append(clock.now_ns() * 1e-9)):
        pass
    assert clock.now_ns() * 1e-9 > 120 and np.diff(beats_s).max() <= BEAT_S + 0.1 + 1e-6
    camera = FakeCamera(PerfClock(), 1.3 * BEAT_S)  # longer than a round of waiting
    beats: list[int] = []
    with CaptureFeed("fake", camera.open, PerfClock()) as feed:
        assert len(list(paced_frames(feed, PerfClock(), limit=2, beat=lambda: beats.append(1)))) == 2
    assert len(beats) >= 4


def predicted(label: str, accepted: bool = True) -> Prediction:
    return Prediction(label, 0, 0.9, 0, 1, 0.9, 0.01, [(label, 0.9)], accepted)


def told(labels: str, times: int) -> tuple[str, int]:
    """Which of the labels are told, one letter each; ! is an error and - none of them. And how many are held back."""
    answers = [InputError("bad") if label == "!" else predicted(label, label != "-") for label in labels]
    agreement = Agreement(times)
    kept = [i for i, _ in agreement.agreed(enumerate(answers))]
    return "".join(labels[i] for i in kept), agreement.held_back


@pytest.mark.parametrize(
    ("labels", "times", "expected"),
    [
        ("aabbab", 1, "aabbab"),
        ("aaabaabbbbaa", 3, "aaabb"),
        ("abababab", 2, ""),
        ("a!a!bb", 2, "!a!b"),
        ("aa--a--", 2, "a---"),
    ],
)
def test_a_change_of_the_label_is_told_after_it_was_seen_often_enough(labels, times, expected):
    assert told(labels, times) == (expected, len(labels) - len(expected))


@given(st.text("ab-", max_size=40), st.integers(1, 4))
def test_no_label_is_told_that_was_not_seen_so_many_times_running(labels, times):
    kept: list[tuple[int, str]] = []
    agreement = Agreement(times)
    answers = [predicted(label, label != "-") for label in labels]
    for i, _ in agreement.agreed(enumerate(answers)):
        kept.append((i, labels[i]))
    before = None
    for i, label in kept:
        if label != before:
            assert labels[max(0, i - times + 1) : i + 1] == label * times
        before = label


def test_frames_are_answered_until_a_change_is_decided(session):
    """A picture that changes once and is then still would otherwise never get its second answer."""
    agreement, detector = Agreement(3), MotionDetector(1e6)
    random = np.random.default_rng(0)
    scenes = [random.integers(0, 255, (6, 8, 3)).repeat(20, 0).repeat(20, 1).astype(np.uint8) for _ in range(2)]
    frames = [Frame("c", i, scenes[i >= 30], i * 10**9) for i in range(60)]
    moved = moved_frames(frames, detector, agreement.pending)
    answers = ((frame, predicted("ab"[frame.number >= 30])) for frame in moved)
    kept = [(frame.number, answer.label) for frame, answer in agreement.agreed(answers)]
    assert kept[-1] == (32, "b") and detector.skipped > 40


def test_a_region_is_all_that_is_seen():
    picture = np.arange(80 * 100 * 3).reshape(80, 100, 3).astype(np.uint8)
    frames = [Frame("c", 0, picture, 0), Frame("c", 1, InputError("bad"), 0), Frame("c", 2, picture[:5, :5], 0)]
    first, second, third = cropped_frames(frames, Region(10, 20, 30, 40))
    np.testing.assert_array_equal(first.image, picture[20:60, 10:40])
    assert second is frames[1] and "no pixel" in str(third.image)


def test_what_skipping_saves_is_an_estimate():
    saved = saved_energy(1000, 0.02, 0.5, PowerModel("board input (model)", 3.0, 6.0, "source"))
    assert saved.net_j == pytest.approx(1000 * 0.02 * 0.5 * 3.0)
    assert saved.measured is False and saved.meter_label == "ESTIMATED" and saved.scope == "board input (model)"
    assert saved_energy(10, None, 1.0, PowerModel("s", 1.0, 2.0, "source")).net_j == 0.0


def test_the_line_of_a_watch_names_what_happened(session):
    clock = FakeClock()
    run = Watch(session, clock, SimulatedFeed(clock, 0.1, frames=2))
    list(run)
    saved = saved_energy(4, 0.5, 1.0, PowerModel("s", 1.0, 2.0, "source"))
    summary = replace(
        run.summary(),
        skipped=4,
        saved_energy=saved,
        held_back=2,
        swaps=1,
        refused_swaps=3,
        unsure_saved=5,
        unsure_lost=6,
    )
    assert WatchSummary.from_dict(summary.to_dict()) == summary
    assert watch_line(summary).endswith(
        "0 of 2 frames dropped, 4 skipped (saves 2.00 J, ESTIMATED), 2 answers held back, 1 bundle change, "
        "3 bundle changes refused, 5 unsure pictures saved, 6 unsure pictures lost"
    )

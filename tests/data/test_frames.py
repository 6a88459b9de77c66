"""Feeds of frames: one contract for every source, then what is particular to each."""

import itertools
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pi_dynn.clock import PerfClock
from pi_dynn.data.captures import PicameraCapture
from pi_dynn.data.fake_camera import FakeCamera
from pi_dynn.data.frames import CaptureFeed, back_off_s
from pi_dynn.data.watch_sources import open_feed
from pi_dynn.errors import CameraUnavailable, InputError
from tests.data.mjpeg_server import MjpegServer

LONG_S = 20.0  # only a test that fails waits for so long
CLOCK = PerfClock()


def quick_delays():
    return itertools.repeat(0.02)


def write_video(path: Path, frames: int = 30, fps: int = 30) -> Path:
    """A video whose pictures are red, and darker from frame to frame."""
    cv2 = pytest.importorskip("cv2")
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (64, 48))
    for i in range(frames):
        video.write(np.full((48, 64, 3), (10, 10, 250 - 4 * i), np.uint8))
    video.release()
    return path


class FakePicamera2:
    """As much of Picamera2 as is used, with its rule that few requests may be held."""

    held = opened = 0
    plugged = True
    going = threading.Event()  # while it is clear, no call returns and nothing is raised: the silent stall
    going.set()

    def __init__(self) -> None:
        if not FakePicamera2.plugged:
            raise IndexError("list index out of range")
        FakePicamera2.opened += 1

    def create_video_configuration(self, main):
        assert main["format"] == "BGR888"
        return main

    def configure(self, configuration) -> None: ...

    def start(self) -> None: ...

    def close(self) -> None:
        FakePicamera2.going.wait()
        FakePicamera2.opened -= 1

    def capture_request(self, wait):
        time.sleep(0.02)
        FakePicamera2.going.wait()  # whatever `wait` says
        if not FakePicamera2.plugged:
            raise TimeoutError
        FakePicamera2.held += 1
        assert FakePicamera2.held <= 2, "the camera would stall"
        return self

    def make_array(self, name):
        assert name == "main"
        return np.full((48, 64, 3), (250, 10, 10), np.uint8)

    def release(self) -> None:
        FakePicamera2.held -= 1


class Files:
    """A folder to which a thread writes photographs, one every 30 ms."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stop = folder, threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        for i in itertools.count():
            if self._stop.wait(0.03):
                return
            Image.new("RGB", (64, 48), (250, 10, 10)).save(self._folder / f"{i}.png")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(params=["fake", "video", "stream", "picamera", "folder"])
def source(request, tmp_path, monkeypatch):
    """A source that gives frames, as `feed`; with `lose` and `restore` where it may go and come back."""
    said: list[str] = []
    if request.param == "fake":
        camera = FakeCamera(CLOCK, 0.02)
        feed = CaptureFeed("fake", camera.open, CLOCK, say=said.append, delays_s=quick_delays)
        yield SimpleNamespace(feed=feed, said=said, lose=camera.unplug, restore=camera.plug_in)
        assert camera.opened == camera.released
    elif request.param == "video":
        pytest.importorskip("cv2")
        yield SimpleNamespace(feed=open_feed(str(write_video(tmp_path / "v.avi")), CLOCK), lose=None)
    elif request.param == "stream":
        pytest.importorskip("cv2")
        server = MjpegServer()
        feed = open_feed(server.url, CLOCK, said.append)
        feed._delays_s = quick_delays
        yield SimpleNamespace(feed=feed, said=said, lose=server.down, restore=server.up)
        server.down()
    elif request.param == "picamera":
        module = ModuleType("picamera2")
        module.Picamera2 = FakePicamera2
        monkeypatch.setitem(sys.modules, "picamera2", module)

        def plug(plugged: bool) -> None:
            monkeypatch.setattr(FakePicamera2, "plugged", plugged)

        feed = CaptureFeed("picamera", PicameraCapture, CLOCK, say=said.append, delays_s=quick_delays)
        yield SimpleNamespace(feed=feed, said=said, lose=lambda: plug(False), restore=lambda: plug(True))
        assert FakePicamera2.opened == FakePicamera2.held == 0
    else:
        pytest.importorskip("watchdog")
        feed = open_feed(str(tmp_path), CLOCK)
        files = Files(tmp_path)
        yield SimpleNamespace(feed=feed, lose=None)
        files.stop()


def pixels_of(frame) -> np.ndarray:
    return np.asarray(Image.open(frame.image)) if isinstance(frame.image, Path) else frame.image


def test_frames_are_rgb_and_counted(source):
    before_ns = CLOCK.now_ns()
    with source.feed as feed:
        frames = [feed.take(LONG_S) for _ in range(3)]
        assert [frame.number for frame in frames] == sorted({frame.number for frame in frames})
        assert before_ns < frames[0].taken_ns < frames[1].taken_ns < frames[2].taken_ns <= CLOCK.now_ns()
        for frame in frames:
            pixels = pixels_of(frame)
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
            if feed.name != "fake":
                red, green, blue = pixels.reshape(-1, 3).mean(0)
                assert red > 180 and green < 40 and blue < 40
    assert feed.dropped == feed.seen - 3 >= 0


def test_a_slow_reader_gets_the_newest_frame(source):
    with source.feed as feed:
        first = feed.take(LONG_S)
        while feed.seen < first.number + 8:
            time.sleep(0.01)
        come = feed.seen
        second = feed.take(LONG_S)
        assert second.number >= come - 1  # the last that came, or one after
        assert feed.dropped >= second.number - first.number - 1 >= 6


def test_closing_twice_and_without_a_frame_is_fine(source):
    with source.feed as feed:
        pass
    feed.close()


def test_a_lost_camera_is_reopened(source):
    if source.lose is None:
        pytest.skip("comes once")
    with source.feed as feed:
        feed.take(LONG_S)
        for reconnects in (1, 2):
            source.lose()
            while feed.take(0.3) is not None:  # what was on the way
                pass
            assert feed.reconnects == reconnects - 1
            source.restore()
            assert feed.take(LONG_S) is not None
            assert feed.reconnects == reconnects
    assert len(source.said) == 4
    assert ["gives no frames" in text for text in source.said] == [True, False] * 2
    assert "back after" in source.said[1]


def test_frames_that_are_not_taken_are_not_decoded():
    camera = FakeCamera(CLOCK, 0.001)
    with CaptureFeed("fake", camera.open, CLOCK) as feed:
        for _ in range(3):
            feed.take(LONG_S)
            come = feed.seen
            while feed.seen < come + 20:
                time.sleep(0.001)
    assert camera.retrieved <= 6 < 60 <= feed.seen


def test_a_frame_that_was_decoded_too_late_is_not_kept_for_the_next_time():
    camera, slow = FakeCamera(CLOCK, 0.001), threading.Event()
    capture = camera.open()
    retrieve, capture.retrieve = capture.retrieve, lambda: slow.wait(LONG_S) and retrieve()
    with CaptureFeed("fake", lambda: capture, CLOCK) as feed:
        assert feed.take(0.1) is None
        late = feed.seen - 1
        slow.set()
        while feed.seen < late + 20:
            time.sleep(0.001)
        assert feed.take(LONG_S).number >= late + 19


def test_closing_does_not_wait_for_the_back_off():
    camera = FakeCamera(CLOCK, 0.001)
    with CaptureFeed("fake", camera.open, CLOCK, delays_s=lambda: itertools.repeat(3600.0)) as feed:
        feed.take(LONG_S)
        camera.unplug()
        assert feed.take(0.2) is None or feed.take(0.2) is None
    assert not feed._thread.is_alive() and feed.take(LONG_S) is None


@given(st.floats(0.01, 10.0), st.floats(0.01, 100.0))
def test_the_back_off_doubles_up_to_its_limit(first_s, longest_s):
    delays = list(itertools.islice(back_off_s(first_s, longest_s), 20))
    assert delays[0] == min(first_s, longest_s) and delays[-1] == pytest.approx(longest_s)
    assert all(b == pytest.approx(min(2 * a, longest_s)) for a, b in itertools.pairwise(delays))


def test_an_error_of_the_driver_is_raised_by_take():
    class Broken(FakeCamera):
        def open(self):
            capture = super().open()
            capture.retrieve = lambda: 1 // 0
            return capture

    feed = CaptureFeed("fake", Broken(CLOCK, 0.001).open, CLOCK)
    with feed, pytest.raises(CameraUnavailable, match="ZeroDivisionError"):
        feed.take(LONG_S)


def test_a_damaged_frame_takes_the_place_of_the_picture():
    camera = FakeCamera(CLOCK, 0.001)

    def damaged():
        raise InputError("fake: a damaged frame")

    capture = camera.open()
    capture.retrieve = damaged
    with CaptureFeed("fake", lambda: capture, CLOCK) as feed:
        assert isinstance(feed.take(LONG_S).image, InputError)


def test_a_video_is_played_once_at_its_own_pace(tmp_path):
    video = write_video(tmp_path / "video.avi", frames=12, fps=20)
    start_ns = CLOCK.now_ns()
    with open_feed(str(video), CLOCK) as feed:
        frames = list(iter(lambda: feed.take(LONG_S), None))
    assert frames[0].number == 0 and feed.seen == 12
    assert (CLOCK.now_ns() - start_ns) * 1e-9 >= 11 / 20
    reds = [frame.image[..., 0].mean() for frame in frames]
    assert reds == sorted(reds, reverse=True)


def test_no_camera_module_on_the_cable(monkeypatch):
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=FakePicamera2))
    monkeypatch.setattr(FakePicamera2, "plugged", False)
    with pytest.raises(CameraUnavailable, match="rpicam-hello"):
        open_feed("picamera", CLOCK)


@pytest.fixture
def picamera2(monkeypatch):
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=FakePicamera2))


def stalled_feed(said: list[str]) -> CaptureFeed:
    return CaptureFeed("picamera", PicameraCapture, CLOCK, say=said.append, delays_s=quick_delays, stalled_s=0.2)


def test_a_camera_module_that_falls_silent_is_opened_anew(picamera2, monkeypatch):
    said: list[str] = []
    with stalled_feed(said) as feed:
        for reconnects in (1, 2):
            assert feed.take(LONG_S) is not None and feed.lost_s == 0.0
            # This thread hangs for good; a camera that is opened from now on works.
            monkeypatch.setattr(FakePicamera2, "going", threading.Event())
            hanging, first = FakePicamera2.going, feed._thread
            while feed.take(0.05) is not None:
                pass
            monkeypatch.setattr(FakePicamera2, "going", SimpleNamespace(wait=lambda: None))
            while feed.take(0.05) is None:
                pass
            assert feed.reconnects == reconnects and feed._thread is not first
            hanging.set()  # the one left behind returns, and gives its camera back
            first.join(LONG_S)
    assert len(said) == 4 and "gives no frames" in said[0] and "back after" in said[1]
    assert FakePicamera2.opened == FakePicamera2.held == 0


def test_a_camera_that_hangs_again_and_again_is_tried_less_often(picamera2, monkeypatch):
    monkeypatch.setattr(FakePicamera2, "going", threading.Event())
    said: list[str] = []
    before = threading.active_count()
    with stalled_feed(said) as feed:
        end_s = time.monotonic() + 2.0
        while time.monotonic() < end_s:
            assert feed.take(0.05) is None
        assert 2 <= threading.active_count() - before <= 4  # after 0.2, 0.6 and 1.4 s
        assert feed.lost_s > 0.5 and len(said) == 1
        FakePicamera2.going.set()
        while feed.take(0.05) is None:
            pass
        assert feed.lost_s == 0.0


def test_a_slow_stream_is_taken_for_a_stall_at_first_only():
    """A frame every 0.5 s, where 0.2 s without one is a stall."""
    camera = FakeCamera(CLOCK, 0.5)
    with CaptureFeed("slow", camera.open, CLOCK, delays_s=quick_delays, stalled_s=0.2) as feed:
        reconnects = []
        while len(reconnects) < 6:
            if feed.take(0.05) is not None:
                reconnects.append(feed.reconnects)
    assert reconnects[2] == reconnects[-1]


def test_a_feed_tells_when_it_has_ended(tmp_path):
    video = write_video(tmp_path / "video.avi", frames=3)
    with open_feed(str(video), CLOCK) as feed:
        assert not feed.ended
        while feed.take(LONG_S) is not None:
            assert feed.lost_s == 0.0
        assert feed.ended


def test_the_fake_camera_counts_its_frames_in_its_pictures():
    camera = FakeCamera(CLOCK, 0.0)
    capture = camera.open()
    for frame in range(3):
        assert capture.grab()
        picture = capture.retrieve()
        assert picture.shape == (120, 160, 3) and np.array_equal(picture[7, :, 1], np.arange(160) + frame)

"""What can be watched, by its name; and what cannot says so."""

import sys

import pytest

from pi_dynn.clock import PerfClock
from pi_dynn.data.watch_sources import open_feed, without_password
from pi_dynn.errors import CameraUnavailable, InputError

CLOCK = PerfClock()


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("/dev/video99", CameraUnavailable, "no such camera"),
        ("99", CameraUnavailable, "/dev/video99: no such camera"),
        ("/dev/null", CameraUnavailable, "cannot be opened; is another program using it"),
        (
            "http://who:secret@127.0.0.1:9/x",
            CameraUnavailable,
            r"http://127\.0\.0\.1:9/x: cannot be opened; check the address",
        ),
        ("nothing/here", InputError, "no such folder, video file or camera"),
        (__file__, InputError, "not a video"),
    ],
)
def test_what_cannot_be_watched_says_so(name, error, text):
    pytest.importorskip("cv2")
    with pytest.raises(error, match=text) as caught:
        open_feed(name, CLOCK)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [("cv2", "/dev/null", "watch"), ("watchdog.observers.inotify", ".", "watch"), ("picamera2", "picamera", "apt")],
)
def test_what_is_not_installed_is_named(module, name, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=extra):
        open_feed(name, CLOCK)


def test_addresses_lose_their_password():
    assert without_password("rtsp://who:p@ss@host:554/a?b") == "rtsp://host:554/a?b"
    assert without_password("/dev/video0") == "/dev/video0"

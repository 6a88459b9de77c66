"""Feeds of frames from the source named on a command line."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from pi_dynn.clock import Clock
from pi_dynn.data.captures import OpenCvCamera, OpenCvVideo, PicameraCapture
from pi_dynn.data.fake_camera import FakeCamera
from pi_dynn.data.folder_frames import FolderFeed
from pi_dynn.data.frames import CaptureFeed, FrameFeed
from pi_dynn.errors import InputError


def open_feed(source: str, clock: Clock, say: Callable[[str], None] = lambda text: None) -> FrameFeed:
    """The feed of `camera` (the first), an index, /dev/video0, picamera, an address, a video file or a folder.

    `fake` is a simulated camera. The callback `say` reports when a camera is lost and when it is back.

    Raises: CameraUnavailable for a camera that is not there; InputError for anything else that cannot be watched.
    """
    if source == "fake":
        return CaptureFeed(source, FakeCamera(clock).open, clock, say=say)
    if source == "picamera":
        return CaptureFeed(source, PicameraCapture, clock, say=say)
    camera = _camera(source)
    if camera is not None:
        name = without_password(camera)
        return CaptureFeed(name, lambda: OpenCvCamera(camera, name), clock, say=say)
    path = Path(source)
    if path.is_dir():
        return FolderFeed(path, clock)
    if path.is_file():
        return CaptureFeed(source, lambda: OpenCvVideo(path, clock), clock, comes_back=False, say=say)
    raise InputError(f"{source}: no such folder, video file or camera; give one of them, /dev/video0 or picamera")


def without_password(address: str) -> str:
    """The address of a stream without user and password; anything else unchanged."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else address


def _camera(source: str) -> str | None:
    """The device or address OpenCV is to open, if `source` is one."""
    if source == "camera":
        return "/dev/video0"
    if source.isdecimal() and source.isascii():
        return f"/dev/video{source}"
    return source if source.startswith("/dev/") or "://" in source else None

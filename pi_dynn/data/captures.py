"""Cameras and video files, opened with OpenCV or picamera2."""

import os
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from pi_dynn.clock import Clock
from pi_dynn.errors import CameraUnavailable, InputError, need_extra

if TYPE_CHECKING:
    from cv2 import VideoCapture

NO_REQUEST_S = 5.0  # without a frame for so long a camera module is lost


def import_opencv() -> ModuleType:
    """The cv2 module, its messages disabled. Raises InputError, with how to install it."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg would write to stderr at every attempt
    with need_extra("watch", "a camera or video"):
        import cv2
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    module: ModuleType = cv2
    return module


class OpenCvCamera:
    """A camera by its device path, or a stream by its address; messages call it `name`. Raises CameraUnavailable."""

    def __init__(self, source: str, name: str) -> None:
        cv2 = import_opencv()
        self._cv2, self._name = cv2, name
        is_stream = "://" in source
        if not is_stream and not Path(source).exists():
            raise CameraUnavailable(f"{name}: no such camera; plug it in, or list the cameras with ls /dev/video*")
        self._video = cv2.VideoCapture(source, cv2.CAP_FFMPEG if is_stream else cv2.CAP_V4L2)
        if not self._video.isOpened():
            self._video.release()
            cure = "check the address" if is_stream else "is another program using it, and is this user in group video?"
            raise CameraUnavailable(f"{name}: cannot be opened; {cure}")

    def grab(self) -> bool:
        """Whether there is a next frame, to be decoded by `retrieve`."""
        return self._video.grab()

    def retrieve(self) -> np.ndarray:
        """The frame that was grabbed: (H, W, 3) uint8, RGB."""
        return retrieve_rgb(self._cv2, self._video, self._name)

    def release(self) -> None:
        """Release the source."""
        self._video.release()


class OpenCvVideo:
    """A video file, played in real time. Raises InputError if it is no video."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._cv2 = import_opencv()
        self._path, self._clock = path, clock
        self._video = self._cv2.VideoCapture(str(path), self._cv2.CAP_FFMPEG)
        if not self._video.isOpened():
            raise InputError(f"{path}: not a video that OpenCV can read; for photographs, watch their folder")
        self._start_ns: int | None = None

    def grab(self) -> bool:
        """Whether there is a next frame, to be decoded by `retrieve`."""
        if not self._video.grab():
            return False
        position_s = self._video.get(self._cv2.CAP_PROP_POS_MSEC) / 1e3
        now_ns = self._clock.now_ns()
        if self._start_ns is None:
            self._start_ns = now_ns - round(position_s * 1e9)
        self._clock.sleep(position_s - (now_ns - self._start_ns) * 1e-9)
        return True

    def retrieve(self) -> np.ndarray:
        """The frame that was grabbed: (H, W, 3) uint8, RGB."""
        return retrieve_rgb(self._cv2, self._video, str(self._path))

    def release(self) -> None:
        """Release the source."""
        self._video.release()


def retrieve_rgb(cv2: ModuleType, video: "VideoCapture", name: str) -> np.ndarray:
    """The frame grabbed last, as RGB (H, W, 3). Raises InputError if it cannot be decoded."""
    good, picture = video.retrieve()
    if not good:
        raise InputError(f"{name}: a damaged frame")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


class PicameraCapture:
    """A camera module on the ribbon cable. Raises CameraUnavailable; InputError without picamera2.

    A module that falls silent may raise nothing: a request is waited for with a limit, and a call that does not return
    at all is left to the CaptureFeed.

    Source: Picamera2 manual, appendix A: the format BGR888 is laid out [R, G, B] in memory.
    """

    def __init__(self) -> None:
        try:
            from picamera2 import Picamera2
        except ImportError as error:
            raise InputError(
                "picamera needs picamera2: `sudo apt install python3-picamera2`, "
                "and an environment made with --system-site-packages"
            ) from error
        self._camera: Any = None  # picamera2 has no types
        self._request: Any = None
        try:
            self._camera = Picamera2()
            self._camera.configure(self._camera.create_video_configuration(main={"format": "BGR888"}))
            self._camera.start()
        except (RuntimeError, IndexError, OSError) as error:  # no camera is an IndexError there
            self.release()
            raise CameraUnavailable(f"picamera: {error}; does `rpicam-hello --list-cameras` show it?") from error

    def grab(self) -> bool:
        """Whether there is a next frame, to be decoded by `retrieve`."""
        self._release_request()
        try:
            self._request = self._camera.capture_request(wait=NO_REQUEST_S)
        except (TimeoutError, RuntimeError):
            return False
        return True

    def retrieve(self) -> np.ndarray:
        """The frame that was grabbed: (H, W, 3) uint8, RGB."""
        return self._request.make_array("main")

    def release(self) -> None:
        """Release the source."""
        self._release_request()
        if self._camera is not None:
            with suppress(RuntimeError):  # a camera that was pulled out cannot be stopped
                self._camera.close()

    def _release_request(self) -> None:
        """Release the current request, which holds one of the camera's few buffers."""
        if self._request is not None:
            self._request.release()
            self._request = None

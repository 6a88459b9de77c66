"""Feeds of the newest frame of a source in real time: older frames are dropped, never queued."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pi_dynn.clock import Clock
from pi_dynn.errors import CameraUnavailable, InputError, PiDynnError


@dataclass(frozen=True)
class Frame:
    """One frame of a source: uint8 RGB (H, W, 3), the path of an image file, or the error in its place.

    `number` counts all frames of the source from zero, dropped ones too; `taken_ns` is its time of arrival.
    """

    name: str
    number: int
    image: np.ndarray | Path | InputError
    taken_ns: int


class FrameFeed:
    """The newest frame of a source; a context manager.

    Attributes: name, seen (number of frames so far), reconnects (how often the source was lost and came back).
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.name, self.seen, self.reconnects = name, 0, 0
        self._clock = clock
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._taken = 0
        self._waiting = self._ended = False
        self._error: PiDynnError | None = None

    def __enter__(self) -> "FrameFeed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the source."""

    @property
    def dropped(self) -> int:
        """The number of frames that were not taken."""
        return self.seen - self._taken

    def take(self, timeout_s: float | None = None) -> Frame | None:
        """The newest frame not taken yet, waiting for one. None at the end of the source, or after `timeout_s`.

        Raises: the error of a failed source, once there is no frame left.
        """
        with self._changed:
            try:
                self._waiting = True
                self._begin()
                self._changed.wait_for(lambda: self._frame is not None or self._ended, timeout_s)
            finally:
                self._waiting = False
            frame, self._frame = self._frame, None
            if frame is not None:
                self._taken += 1
            elif self._error is not None:
                raise self._error
            return frame

    def _begin(self) -> None:
        """Called whenever a frame is waiting."""

    def rest(self, duration_s: float) -> None:
        """Wait `duration_s` seconds, or until the source ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended, max(0.0, duration_s))

    def _arrived(self, name: str, load: Callable[[], np.ndarray | Path | InputError], keep: bool = False) -> None:
        """Add a frame. It is loaded only if `take` is waiting for it, or with `keep`."""
        taken_ns = self._clock.now_ns()
        with self._changed:
            number, waiting = self.seen, self._waiting
            self.seen += 1
        if not (waiting or keep):
            return
        frame = Frame(name, number, load(), taken_ns)
        with self._changed:
            if not (self._waiting or keep):
                return  # `take` returned an earlier frame; this one would be too old for the next call
            self._frame = frame
            self._changed.notify_all()

    def _end(self, error: PiDynnError | None = None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()


class Capture(Protocol):
    """An open camera or video file."""

    def grab(self) -> bool:
        """Wait for the next frame, which is not decoded yet; False if none will come."""
        ...

    def retrieve(self) -> np.ndarray:
        """The frame grabbed last, as uint8 RGB (H, W, 3). Raises InputError if it is damaged."""
        ...

    def release(self) -> None:
        """Close the device."""
        ...


def back_off_s(first_s: float = 0.5, longest_s: float = 30.0) -> Iterator[float]:
    """Exponential back-off: endless delays, doubled every time up to `longest_s`."""
    while True:
        yield min(first_s, longest_s)
        first_s = min(2.0 * first_s, longest_s)


class CaptureFeed(FrameFeed):
    """A feed that reads a camera in a thread, so that a frame is never older than the call of `take`.

    With `comes_back`, a camera that stops giving frames is reopened, with retries after `delays_s`, and the callback
    `say` reports when it is lost and when it is back. Without, the feed ends.

    Raises: CameraUnavailable if it cannot be opened at first.
    """

    def __init__(
        self,
        name: str,
        open_capture: Callable[[], Capture],
        clock: Clock,
        *,
        comes_back: bool = True,
        say: Callable[[str], None] = lambda text: None,
        delays_s: Callable[[], Iterator[float]] = back_off_s,
    ) -> None:
        super().__init__(name, clock)
        self._open, self._comes_back, self._say, self._delays_s = open_capture, comes_back, say, delays_s
        self._stopping = threading.Event()
        self._capture: Capture | None = open_capture()
        self._thread = threading.Thread(target=self._run, name="frames", daemon=True)

    def _begin(self) -> None:
        if self._thread.ident is None:  # not earlier, or the first frames of a video would be lost
            self._thread.start()

    def close(self) -> None:
        """Stop the thread, which releases the capture; waits two seconds at most."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)  # a driver that hangs must not keep the program from ending
        elif self._thread.ident is None and self._capture is not None:
            self._capture.release()
            self._capture = None

    def _run(self) -> None:
        error = None
        try:
            grabbed = self._capture is not None and self._capture.grab()
            while self._capture is not None and not self._stopping.is_set():
                if grabbed:
                    self._arrived(self.name, self._retrieve)
                    grabbed = self._capture.grab()
                else:
                    self._capture.release()
                    self._capture = self._opened_again() if self._comes_back else None
                    grabbed = self._capture is not None
        except Exception as problem:  # any error of a driver is raised by `take`, not in this thread
            error = CameraUnavailable(f"{self.name}: {type(problem).__name__}: {problem}")
        finally:
            if self._capture is not None:
                self._capture.release()
            self._end(error)

    def _retrieve(self) -> np.ndarray | InputError:
        assert self._capture is not None  # it has just grabbed a frame
        try:
            return self._capture.retrieve()
        except InputError as error:
            return error

    def _opened_again(self) -> Capture | None:
        """The reopened camera with its first frame grabbed; None if the feed is closed meanwhile."""
        lost_ns = self._clock.now_ns()
        self._say(f"{self.name}: gives no frames any more; trying until it is back")
        for delay_s in self._delays_s():
            if self._stopping.wait(delay_s):
                return None
            try:
                capture = self._open()
            except CameraUnavailable:
                continue
            if capture.grab():
                self.reconnects += 1
                self._say(f"{self.name}: back after {(self._clock.now_ns() - lost_ns) * 1e-9:.1f} s")
                return capture
            capture.release()
        return None

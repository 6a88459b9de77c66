"""Feeds of the newest frame of a source in real time: older frames are dropped, never queued."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
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
    def ended(self) -> bool:
        """Whether no frame will come any more, and none is left."""
        with self._changed:
            return self._ended and self._frame is None

    @property
    def lost_s(self) -> float:
        """Seconds since the source was lost; 0 while it is there."""
        return 0.0

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


STALLED_S = 15.0  # a camera that neither gives a frame nor fails for so long hangs ...
SLOW, LONGEST_SLOW_S = 4.0, 300.0  # ... or for so many times its last pause, as a stream of a picture a minute has
LONGEST_STALL_S = 3600.0


class CaptureFeed(FrameFeed):
    """A feed that reads a camera in a thread, so that a frame is never older than the call of `take`.

    With `comes_back`, a camera that stops giving frames is reopened, with retries after `delays_s`, and the callback
    `say` reports when it is lost and when it is back. Without, the feed ends. A driver that hangs for `stalled_s`
    is left to itself, and the camera opened anew in another thread; `take` looks after that, so call it now and then.

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
        stalled_s: float = STALLED_S,
    ) -> None:
        super().__init__(name, clock)
        self._open, self._comes_back, self._say, self._delays_s = open_capture, comes_back, say, delays_s
        self._stalled_s = self._patience_s = stalled_s
        self._lost_ns: int | None = None
        self._last_ns: int | None = None  # of a frame
        self._due_ns = 0  # when the thread has to have got on
        self._stopping = threading.Event()
        self._capture: Capture | None = open_capture()
        self._thread = self._new_thread()

    @property
    def lost_s(self) -> float:
        return self._since_s(self._lost_ns)

    def _since_s(self, then_ns: int | None) -> float:
        return 0.0 if then_ns is None else (self._clock.now_ns() - then_ns) * 1e-9

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name="frames", daemon=True)

    def _begin(self) -> None:
        if self._thread.ident is None:  # not earlier, or the first frames of a video would be lost
            self._got_on()
            self._thread.start()
        elif self._hangs():
            self._thread = self._new_thread()
            self._thread.start()

    def _hangs(self) -> bool:
        """Whether the thread is overdue, and another is to be started; with every one in a row it is waited longer."""
        if not self._comes_back or self._ended or self._clock.now_ns() <= self._due_ns:
            return False
        self._patience_s = min(2.0 * self._patience_s, LONGEST_STALL_S)  # a thread that is left behind is kept
        self._got_on()
        return True

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
            for delay_s in self._steps():
                if not self._is_current() or self._stopping.wait(delay_s):
                    break
        except Exception as problem:  # any error of a driver is raised by `take`, not in this thread
            error = CameraUnavailable(f"{self.name}: {type(problem).__name__}: {problem}")
        if self._is_current():
            self._end(error)

    def _is_current(self) -> bool:
        """Whether this thread has not been left behind."""
        return self._thread is threading.current_thread()

    def _got_on(self, delay_s: float = 0.0) -> None:
        """Expect the next step within the patience, after a pause of `delay_s`."""
        self._due_ns = self._clock.now_ns() + round((self._patience_s + delay_s) * 1e9)

    def _steps(self) -> Iterator[float]:
        """Read frames until the source ends, or for ever; after each step, the seconds to wait before the next."""
        capture, self._capture = self._capture, None
        try:
            grabbed = capture is not None and capture.grab()
            while True:
                if grabbed:
                    assert capture is not None
                    if self._is_current():
                        pause_s, self._last_ns = self._since_s(self._last_ns), self._clock.now_ns()
                        self._patience_s = max(self._stalled_s, min(SLOW * pause_s, LONGEST_SLOW_S))
                        self._lost_ns = None
                        self._got_on()
                        self._arrived(self.name, partial(retrieved, capture))
                    yield 0.0
                    grabbed = capture.grab()
                    continue
                leaving, capture = capture, None
                if leaving is not None:
                    leaving.release()
                if not self._comes_back or not self._is_current():
                    return
                if self._lost_ns is None:  # a driver that hangs again was lost before
                    self._lost_ns = self._clock.now_ns()
                    self._say(f"{self.name}: gives no frames any more; trying until it is back")
                lost_ns = self._lost_ns
                for delay_s in self._delays_s():
                    self._got_on(delay_s)
                    yield delay_s
                    capture = self._reopened()
                    if capture is not None or not self._is_current():
                        break
                if capture is None or not self._is_current():
                    return
                grabbed = True
                self.reconnects += 1
                self._say(f"{self.name}: back after {(self._clock.now_ns() - lost_ns) * 1e-9:.1f} s")
        finally:
            if capture is not None:
                capture.release()

    def _reopened(self) -> Capture | None:
        """The camera with a frame grabbed; None if it cannot be opened, or gives none."""
        try:
            capture = self._open()
        except CameraUnavailable:
            return None
        if capture.grab():
            return capture
        capture.release()
        return None


def retrieved(capture: Capture) -> np.ndarray | InputError:
    """The frame grabbed last, or the error in its place."""
    try:
        return capture.retrieve()
    except InputError as error:
        return error

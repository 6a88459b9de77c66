"""A simulated camera that can be unplugged; used only when named."""

import numpy as np

from pi_dynn.clock import Clock
from pi_dynn.errors import CameraUnavailable


class FakeCamera:
    """A camera that shows a gradient moving by one pixel per frame; a column's value is its position, modulo 256.

    `open` is the function to pass to a CaptureFeed.
    """

    def __init__(self, clock: Clock, period_s: float = 0.1, height: int = 120, width: int = 160) -> None:
        self.clock, self.period_s, self.shape = clock, period_s, (height, width)
        self.plugged = True
        self.opened = self.released = self.frames = self.retrieved = 0

    def unplug(self) -> None:
        """Stop the frames; opening fails until `plug_in`."""
        self.plugged = False

    def plug_in(self) -> None:
        """Let it be opened again."""
        self.plugged = True

    def open(self) -> "FakeCapture":
        """A capture. Raises CameraUnavailable while unplugged."""
        if not self.plugged:
            raise CameraUnavailable("fake: no such camera; plug it in")
        self.opened += 1
        return FakeCapture(self)


class FakeCapture:
    """An open FakeCamera; like a real one, it does not recover after `unplug`."""

    def __init__(self, camera: FakeCamera) -> None:
        self._camera, self._alive, self._open = camera, True, True

    def grab(self) -> bool:
        self._camera.clock.sleep(self._camera.period_s)
        self._alive = self._alive and self._camera.plugged
        self._camera.frames += self._alive
        return self._alive

    def retrieve(self) -> np.ndarray:
        self._camera.retrieved += 1
        height, width = self._camera.shape
        row = (np.arange(width) + self._camera.frames - 1).astype(np.uint8)
        return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()

    def release(self) -> None:
        self._camera.released += self._open
        self._open = False

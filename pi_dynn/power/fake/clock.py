"""A simulated clock that runs a callback while the main program sleeps."""

from collections.abc import Callable

from pi_dynn.clock import FakeClock


class SimulatedClock(FakeClock):
    """A fake clock that calls one sampler during `sleep`, in place of the sampler's thread.

    A sleep advances from one wake-up to the next. Time that the sampler itself sleeps (its bus transfers) is added
    to the clock, so a sleep may end late by a transfer, as it does on a real machine.
    """

    def __init__(self, start_ns: int = 0) -> None:
        super().__init__(start_ns)
        self._wake: Callable[[], int | None] | None = None
        self._due_ns: int | None = None
        self._waking = False

    def attach(self, wake: Callable[[], int | None]) -> None:
        """Call `wake` now, and again whenever the time it returned has come; None ends it."""
        self._wake = wake
        self._call()

    def detach(self) -> None:
        """Remove the callback."""
        self._wake = self._due_ns = None

    def sleep(self, duration_s: float) -> None:
        end_ns = self.now_ns() + max(0, round(duration_s * 1e9))
        while not self._waking and self._due_ns is not None and self._due_ns <= end_ns:
            self._move_to(self._due_ns)
            self._call()
        self._move_to(end_ns)

    def _call(self) -> None:
        self._waking = True
        try:
            due_ns = self._wake() if self._wake is not None else None
        finally:
            self._waking = False
        self._due_ns = None if due_ns is None else max(due_ns, self.now_ns() + 1)  # time must move on

    def _move_to(self, t_ns: int) -> None:
        self._now_ns = max(self._now_ns, t_ns)

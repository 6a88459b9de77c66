"""Clocks. Measuring code takes one as an argument and never calls `time` itself, so that tests can fake it."""

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock in nanoseconds that can also wait."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary start; never goes back."""
        ...

    def sleep(self, duration_s: float) -> None:
        """Return after at least `duration_s` seconds of this clock."""
        ...


def current_date() -> str:
    """The date of the computer's calendar, such as 2027-01-31."""
    return time.strftime("%Y-%m-%d")


class PerfClock:
    """The production clock: `time.perf_counter_ns`, which no clock adjustment can move."""

    def now_ns(self) -> int:
        return time.perf_counter_ns()

    def sleep(self, duration_s: float) -> None:
        time.sleep(max(0.0, duration_s))


class FakeClock:
    """A clock that moves only by `sleep` and `advance`: sleeping is instant and exact.

    `tick_ns` is added at every reading, so that loops which poll the clock end.
    """

    def __init__(self, start_ns: int = 0, tick_ns: int = 0) -> None:
        self._now_ns = start_ns
        self.tick_ns = tick_ns

    def now_ns(self) -> int:
        self._now_ns += self.tick_ns
        return self._now_ns

    def sleep(self, duration_s: float) -> None:
        self.advance(duration_s)

    def advance(self, duration_s: float) -> None:
        """Move the clock forward by `duration_s` seconds."""
        self._now_ns += max(0, round(duration_s * 1e9))

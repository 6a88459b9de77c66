"""Sampling of a meter while the measured work runs; every sample is kept.

`Sampler.step` polls once and returns when to poll next. A thread calls it; with a simulated clock the clock itself
does (`SteppedSampler`), so that hours of simulated time take seconds.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pi_dynn.clock import Clock
from pi_dynn.errors import PowerError
from pi_dynn.power.meter import EnergyMeter, EnergyReading, PowerSample
from pi_dynn.power.trace import Span, ThrottleMark, Trace

_LONGEST_SLEEP_S = 0.05  # so that stopping is prompt whatever the period
_STALE_POLLS_PER_PERIOD = 16
_MARGIN_PERIODS = 10  # `check_trace` looks at samples this near to a window, too


class Sampler:
    """Samples `meter` in a thread from `start` (or `with`) until `stop`.

    `throttle_bits`, if given, is called for the firmware's throttle word every `throttle_period_s`; it
    must be fast (a file, not a process), because no sample is taken meanwhile.

    A meter that fails ends the sampling but not the program: the trace is kept, with the reason.
    """

    def __init__(
        self,
        meter: EnergyMeter,
        clock: Clock,
        *,
        throttle_bits: Callable[[], int | None] | None = None,
        throttle_period_s: float = 1.0,
        stop_timeout_s: float = 5.0,
    ) -> None:
        self.meter = meter
        self.clock = clock
        self._throttle_bits = throttle_bits
        self._throttle_period_ns = round(throttle_period_s * 1e9)
        self._stop_timeout_s = stop_timeout_s
        self._samples: list[PowerSample | EnergyReading] = []
        self._retries: list[int] = []  # the meter's count at each sample
        self._spans: list[Span] = []
        self._throttle: list[ThrottleMark] = []
        self._next_throttle_ns: int | None = None
        self._next_due_ns: int | None = None
        self._last_t_ns = -1
        self._stale_reads = 0
        self._retries_before = meter.retries
        self._error: str | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # One poll

    def step(self) -> int | None:
        """Poll once; return when to poll again (nanoseconds of the clock), or None if sampling is over."""
        if self._error is not None or self._stopping.is_set():
            return None
        try:
            self._watch_throttle()
            sample = self.meter.read()
        except PowerError as error:
            self._error = str(error)
            return None
        except Exception as error:  # a thread that dies silently would look like a meter that never answers
            self._error = f"{type(error).__name__}: {error}"
            return None
        self._keep(sample)
        return self._due_ns(fresh=sample is not None)

    def _keep(self, sample: PowerSample | EnergyReading | None) -> None:
        if sample is not None and sample.t_ns > self._last_t_ns:
            self._retries.append(self.meter.retries)  # first, so that other threads find one for each sample
            self._samples.append(sample)
            self._last_t_ns = sample.t_ns
            return
        self._stale_reads += 1
        if sample is not None and self._samples:  # its flags are kept: a reset must not be lost
            last = self._samples[-1]
            self._samples[-1] = replace(last, flags=last.flags | sample.flags)

    def _due_ns(self, fresh: bool) -> int:
        due_ns = self.meter.due_ns()
        if due_ns is not None:
            return due_ns
        now_ns = self.clock.now_ns()
        period_ns = round(self.meter.info.nominal_period_s * 1e9)
        if not fresh:
            return now_ns + period_ns // _STALE_POLLS_PER_PERIOD
        # A steady grid, not "one period after the last read"; after a delay it continues without a burst.
        grid_ns = (self._next_due_ns if self._next_due_ns is not None else now_ns) + period_ns
        self._next_due_ns = grid_ns if grid_ns > now_ns else now_ns + period_ns
        return self._next_due_ns

    def _watch_throttle(self) -> None:
        now_ns = self.clock.now_ns()
        if self._throttle_bits is None or (self._next_throttle_ns is not None and now_ns < self._next_throttle_ns):
            return
        self._next_throttle_ns = now_ns + self._throttle_period_ns
        self.mark_throttle(self._throttle_bits())

    # Marks set by the measuring program

    def add_span(self, t0_ns: int, t1_ns: int, label: str) -> int:
        """Mark [t0_ns, t1_ns] of the sampler's clock; returns the index of the span in the trace's spans."""
        self._spans.append(Span(t0_ns, t1_ns, label))
        return len(self._spans) - 1

    @contextmanager
    def span(self, label: str) -> Iterator[None]:
        """Mark the time that the body takes, also if it raises."""
        t0_ns = self.clock.now_ns()
        try:
            yield
        finally:
            self.add_span(t0_ns, self.clock.now_ns(), label)

    def mark_throttle(self, bits: int | None) -> None:
        """Record the firmware's current throttle word; None (no such word) is ignored."""
        if bits is not None and (not self._throttle or self._throttle[-1].bits != bits):
            self._throttle.append(ThrottleMark(self.clock.now_ns(), bits))

    @property
    def failed(self) -> str | None:
        """Why sampling ended early, or None. To be checked between trials."""
        return self._error

    def trace(self) -> Trace:
        """The trace so far, also after a failure."""
        return self._trace_from(0)

    def trace_since(self, t0_ns: int) -> Trace:
        """The trace from shortly before `t0_ns` on; its cost does not grow with the length of the run."""
        before_ns = t0_ns - round(_MARGIN_PERIODS * self.meter.info.nominal_period_s * 1e9)
        return self._trace_from(bisect_left(self._samples, before_ns, key=lambda sample: sample.t_ns))

    def _trace_from(self, first: int) -> Trace:
        samples = self._samples[first:]  # a copy: the thread may still be appending
        retries_before = self._retries[first - 1] if first else self._retries_before
        counts = self.meter.info.kind == "counter"

        def column(name: str) -> NDArray[np.float64]:
            values = [getattr(sample, name, None) for sample in samples]
            return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

        return Trace(
            info=self.meter.info,
            t_ns=np.array([sample.t_ns for sample in samples], dtype=np.int64),
            power_w=None if counts else column("power_w"),
            counter_j=column("energy_j") if counts else None,
            voltage_v=column("voltage_v"),
            current_a=column("current_a"),
            flags=np.array([int(sample.flags) for sample in samples], dtype=np.int64),
            spans=tuple(self._spans),
            throttle=tuple(self._throttle),
            stale_reads=self._stale_reads,
            retries=self.meter.retries - retries_before,
            error=self._error,
        )

    # Start and stop

    def start(self) -> None:
        """Start sampling."""
        self._thread = threading.Thread(target=self._run, name="pi_dynn power sampler", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due_ns = self.step()
        while due_ns is not None:
            wait_s = (due_ns - self.clock.now_ns()) * 1e-9
            if wait_s > 0:
                self.clock.sleep(min(wait_s, _LONGEST_SLEEP_S))
            if wait_s <= _LONGEST_SLEEP_S or self._stopping.is_set():
                due_ns = self.step()

    def stop(self) -> Trace:
        """End the sampling and return the trace; its `error` names a meter that hangs, whose thread is left running."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(self._stop_timeout_s)
            if self._thread.is_alive() and self._error is None:
                self._error = f"{self.meter.info.name} did not answer for {self._stop_timeout_s:g} s: check its bus"
            self._thread = None
        return self.trace()

    def __enter__(self) -> "Sampler":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and self._error is None:
            self._error = "interrupted" if issubclass(kind, KeyboardInterrupt) else f"{kind.__name__}: {error}"
        self.stop()


@runtime_checkable
class SteppingClock(Clock, Protocol):
    """A simulated clock that runs a callback while it is advanced."""

    def attach(self, wake: Callable[[], int | None]) -> None:
        """Call `wake` now, and again whenever the time it returned has come."""
        ...

    def detach(self) -> None:
        """Remove the callback."""
        ...


class SteppedSampler(Sampler):
    """A sampler without a thread: the simulated clock calls it while the measuring program sleeps."""

    clock: SteppingClock

    def __init__(self, meter: EnergyMeter, clock: SteppingClock, **options: Any) -> None:
        super().__init__(meter, clock, **options)

    def start(self) -> None:
        self.clock.attach(self.step)

    def stop(self) -> Trace:
        self._stopping.set()
        self.clock.detach()
        return self.trace()


def build_sampler(meter: EnergyMeter, clock: Clock, **options: Any) -> Sampler:
    """The sampler for `clock`: stepped by a simulated clock, in a thread with a real one."""
    return (
        SteppedSampler(meter, clock, **options)
        if isinstance(clock, SteppingClock)
        else Sampler(meter, clock, **options)
    )

"""The protocol of an energy measurement: an idle window, trials, another idle window. Imports no torch.

`measure_call` applies it to any function.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from pi_dynn.board import Board, advice
from pi_dynn.clock import Clock
from pi_dynn.energy.records import EnergyRecording, Subject, TimedPass
from pi_dynn.errors import InputError
from pi_dynn.power import EnergyMeter, Sampler, Span, Trace, build_sampler, check_trace

IDLE_BEFORE, IDLE_AFTER = "idle before", "idle after"
_COOL_POLL_S = 1.0
_SETTLING_PERIODS = 4  # the first sample may cover time before the window, so the window begins later
_ATTEMPTS = (False, False, True)  # at a window; True for the last one, which counts even with a gap
_REPEATED = " (repeated)"
_ANY_GAP_PERIODS = 1e6


@dataclass(frozen=True)
class EnergySettings:
    """The settings of a measurement. A trial has `n` answers; with None as many as last `trial_s` seconds.

    Before each trial the board may cool for up to `cool_limit_s` seconds until it is no more than `cool_within_c`
    degrees warmer than before the first, because a warm board draws more power.
    """

    n: int | None = None
    trials: int = 5
    idle_s: float = 10.0
    trial_s: float = 10.0
    batch_size: int = 1
    each_exit: bool = False
    cool_within_c: float = 2.0
    cool_limit_s: float = 60.0

    def __post_init__(self) -> None:
        least = {"n": 1, "trials": 1, "batch_size": 1}
        for name, value in least.items():
            setting = getattr(self, name)
            if setting is not None and setting < value:
                raise InputError(f"{name}={setting}: give {value} or more")
        if not (self.idle_s > 0 and self.trial_s > 0):
            raise InputError(f"idle_s={self.idle_s}, trial_s={self.trial_s}: windows last longer than 0 s")


@dataclass(frozen=True)
class EnergyParts:
    """The meter, clock, board and callbacks of a measurement.

    `working` is entered around the measured work; a simulated load uses it to switch on.
    `on_stage(what, done_s, total_s)` is a progress callback, called between windows only.
    """

    meter: EnergyMeter
    clock: Clock
    board: Board
    working: Callable[[], AbstractContextManager[object]] = nullcontext
    on_stage: Callable[[str, float, float], None] = lambda what, done_s, total_s: None

    def make_sampler(self) -> Sampler:
        """A sampler of the meter that watches the board's throttle bits."""
        return build_sampler(self.meter, self.clock, throttle_bits=self.board.live_throttle_bits)


class Measurement(NamedTuple):
    """The recording of a run and the power trace of its meter."""

    recording: EnergyRecording
    trace: Trace


class SampledRun:
    """Measures the idle windows and trials of one run as spans of its trace, and keeps its progress.

    Attributes: idle (indices of the idle windows' spans), notes, done_s, total_s.
    """

    def __init__(self, parts: EnergyParts, settings: EnergySettings, sampler: Sampler, notes: list[str]) -> None:
        self._parts, self._settings, self._sampler, self.notes = parts, settings, sampler, notes
        self._start_c: float | None = None
        self.idle: list[int] = []
        self.done_s = 0.0
        self.total_s = 2 * settings.idle_s

    def stage(self, what: str) -> None:
        """Report the next stage to the progress callback."""
        self._parts.on_stage(what, self.done_s, self.total_s)

    def measure_idle(self, label: str) -> None:
        """Measure an idle window; measure it again if a gap in the samples is the only problem."""
        clock, first = self._parts.clock, not self.idle
        if first:
            clock.sleep(_SETTLING_PERIODS * self._parts.meter.info.nominal_period_s)
        for last_attempt in _ATTEMPTS:
            self.stage(label)
            self._mark_throttle()
            start_ns = clock.now_ns()
            clock.sleep(self._settings.idle_s)
            span = self._end_span(start_ns, clock.now_ns(), label, counts=last_attempt)
            if span is not None:
                self.idle.append(span)
                break
        self.done_s += self._settings.idle_s
        if first:
            self._start_c = self._parts.board.temperature_c()

    def trial_attempts(self, label: str) -> Iterator[bool]:
        """Attempts at a trial, each to be ended by `end_trial`; yields whether it is the last one allowed."""
        self._cool_down()
        for last_attempt in _ATTEMPTS:
            self.stage(label)
            self._mark_throttle()
            yield last_attempt

    def end_trial(self, start_ns: int, stop_ns: int, label: str, *, counts: bool) -> int | None:
        """End an attempt; returns the index of the trial's span, or None if the trial has to be repeated.

        `counts` is set for the last attempt and for an interrupted one, which count even with a gap.
        """
        span = self._end_span(start_ns, stop_ns, label, counts)
        self._mark_throttle()
        if span is not None:
            self.done_s += (stop_ns - start_ns) * 1e-9
        return span

    def _end_span(self, start_ns: int, stop_ns: int, label: str, counts: bool) -> int | None:
        if counts or not self._has_gap(Span(start_ns, stop_ns, label)):
            return self._sampler.add_span(start_ns, stop_ns, label)
        self._sampler.add_span(start_ns, stop_ns, label + _REPEATED)
        return None

    def _mark_throttle(self) -> None:
        self._sampler.mark_throttle(self._parts.board.throttle_bits())

    def _has_gap(self, window: Span) -> bool:
        """Whether a gap in its samples is the only problem of a window, so that it should be measured again.

        A gap comes from another program that used the processor for a moment; other problems would come again.
        """
        trace = self._sampler.trace_since(window.t0_ns)
        quality = check_trace(trace, window)
        gap = not quality.valid and check_trace(trace, window, max_gap_periods=_ANY_GAP_PERIODS).valid
        if gap:
            self.notes.append(
                f"{window.label} was measured again: a gap of {quality.largest_gap_s:.3g} s in its samples"
            )
        return gap

    def _cool_down(self) -> None:
        settings, clock, board = self._settings, self._parts.clock, self._parts.board
        end_ns = clock.now_ns() + round(settings.cool_limit_s * 1e9)
        while self._start_c is not None and (now_c := board.temperature_c()) is not None:
            if now_c <= self._start_c + settings.cool_within_c:
                return
            if clock.now_ns() >= end_ns:
                note = f"the board did not cool to within {settings.cool_within_c:g} C between trials: add a fan"
                if note not in self.notes:
                    self.notes.append(note)
                return
            self.stage("cooling")
            clock.sleep(_COOL_POLL_S)


_PROBE_S = 0.2
_PROBE_CALLS = 5
_CHECKS = 100  # how often per trial the sampler is checked for failure


def measure_call(parts: EnergyParts, call: Callable[[], object], name: str, settings: EnergySettings) -> Measurement:
    """Measure idle, trials of `n` calls, idle. An early end is noted in the recording or its trace."""
    before = parts.board.snapshot()
    notes = list(advice(before))
    trials: list[TimedPass] = []
    sampler = parts.make_sampler()
    run = SampledRun(parts, settings, sampler, notes)
    with parts.working():
        n = settings.n or _trial_length(call, parts.clock, settings.trial_s)
    with sampler:
        run.measure_idle(IDLE_BEFORE)
        for number in range(settings.trials):
            if sampler.failed is None:
                trials.append(_call_trial(run, parts, call, n, sampler, f"trial {number + 1} of {settings.trials}"))
        if sampler.failed is None:
            run.measure_idle(IDLE_AFTER)
    after = parts.board.snapshot()
    recording = EnergyRecording([Subject(name)], [], trials, settings.trials, before, after, notes, idle=run.idle)
    return Measurement(recording, sampler.trace())


def _call_trial(
    run: SampledRun, parts: EnergyParts, call: Callable[[], object], n: int, sampler: Sampler, label: str
) -> TimedPass:
    """One trial of `n` calls; fewer if the meter fails."""
    chunk = max(1, n // _CHECKS)
    for last_attempt in run.trial_attempts(label):
        calls = 0
        with parts.working():
            start_ns = stop_ns = parts.clock.now_ns()
            while calls < n and sampler.failed is None:
                for _ in range(min(chunk, n - calls)):
                    call()
                calls = min(n, calls + chunk)
                stop_ns = parts.clock.now_ns()
        span = run.end_trial(start_ns, stop_ns, label, counts=last_attempt)
        if span is not None:
            break
    elapsed_s = (stop_ns - start_ns) * 1e-9
    return TimedPass(0, None, label, n, calls, elapsed_s, elapsed_s, [], [], None, span)


def _trial_length(call: Callable[[], object], clock: Clock, trial_s: float) -> int:
    """The number of calls that last `trial_s`, from the fastest of a few: the slower ones were disturbed."""
    times_s: list[float] = []
    while len(times_s) < _PROBE_CALLS or sum(times_s) < _PROBE_S:
        start_ns = clock.now_ns()
        call()
        times_s.append((clock.now_ns() - start_ns) * 1e-9)
    return max(1, math.ceil(trial_s / max(min(times_s), 1e-7)))

"""The protocol of an energy measurement: idle, trial, idle, trial, ..., idle. Imports no torch.

`measure_call` applies it to any function.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pi_dynn.board import Board, advice
from pi_dynn.clock import Clock
from pi_dynn.energy.records import EnergyRecording, Subject, TimedPass
from pi_dynn.energy.validity import MAX_RANGE_SHARE
from pi_dynn.errors import InputError, PowerError, TraceInvalid
from pi_dynn.power import EnergyMeter, MeterInfo, Sampler, Span, Trace, build_sampler, check_trace
from pi_dynn.power.meter import ESTIMATED
from pi_dynn.stats import standard_error

_COOL_POLL_S = 1.0
_MARGIN_PERIODS = 4  # samples across the edge between idle and work belong to neither side
_SETTLE_STEP_S = 0.5
_SETTLE_STEP_PERIODS = 10
_SETTLE_LIMIT_S = 10.0
_SETTLE_BLOCKS = 5  # of a step, for its standard error
_SETTLE_SIGMA = 3.0
_ATTEMPTS = (False, False, True)  # at a window; True for the last one, which counts even with a gap
_REPEATED = " (repeated)"
_ANY_GAP_PERIODS = 1e6
_LEAST_TRIAL_PERIODS = 50


@dataclass(frozen=True)
class EnergySettings:
    """The settings of a measurement. A trial has `n` answers; with None as many as last `trial_s` seconds.

    A trial that is too short for its meter gets more answers, unless `exact_n` is set. Before each idle window the
    board may cool for up to `cool_limit_s` seconds until it is no more than `cool_within_c` degrees warmer than
    after the first, because a warm board draws more power.
    """

    n: int | None = None
    trials: int = 5
    idle_s: float = 10.0
    trial_s: float = 10.0
    batch_size: int = 1
    each_exit: bool = False
    exact_n: bool = False
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

    def lengthened(self, n: int, elapsed_s: float, info: MeterInfo) -> int:
        """How many answers a trial needs for this meter, of which `n` took `elapsed_s`; `n` if those are enough."""
        least_s = _LEAST_TRIAL_PERIODS * info.nominal_period_s
        if self.exact_n or elapsed_s >= least_s:
            return n
        return math.ceil(n * least_s / max(elapsed_s, 1e-9) * 1.02)  # they do not take exactly as long again


@dataclass(frozen=True)
class EnergyParts:
    """The meter, clock, board and callbacks of a measurement.

    `working` is entered around the measured work; a simulated load uses it to switch on.
    `on_stage(what, done_s, total_s)` is a progress callback, called between windows only; `on_note(text)` gets what
    should be known before the run is over; `on_trial` is called with True and False as a trial begins and ends.
    """

    meter: EnergyMeter
    clock: Clock
    board: Board
    working: Callable[[], AbstractContextManager[object]] = nullcontext
    on_stage: Callable[[str, float, float], None] = lambda what, done_s, total_s: None
    on_note: Callable[[str], None] = lambda text: None
    on_trial: Callable[[bool], None] = lambda begins: None

    def make_sampler(self) -> Sampler:
        """A sampler of the meter that watches the board's throttle bits."""
        return build_sampler(self.meter, self.clock, throttle_bits=self.board.live_throttle_bits)


class Measurement(NamedTuple):
    """The recording of a run and the power trace of its meter."""

    recording: EnergyRecording
    trace: Trace


class SampledRun:
    """Measures the idle windows and trials of one run as spans of its trace, and keeps its progress.

    Attributes: idle (indices of the idle windows' spans), settling_s (the wait for steady power before each of them),
    peak_a (the largest current of the work, None if the meter gives none), notes, done_s, total_s.
    """

    def __init__(self, parts: EnergyParts, settings: EnergySettings, notes: list[str], cases: int = 1) -> None:
        self._parts, self._settings, self.notes = parts, settings, notes
        self.sampler = parts.make_sampler()
        self._start_c: float | None = None
        self.idle: list[int] = []
        self.settling_s: list[float] = []
        self.peak_a: float | None = None
        self.done_s = 0.0
        self.total_s = (1 + settings.trials * cases) * settings.idle_s

    def stage(self, what: str) -> None:
        """Report the next stage to the progress callback."""
        self._parts.on_stage(what, self.done_s, self.total_s)

    def note(self, text: str) -> None:
        """Keep a note, and say it now."""
        self.notes.append(text)
        self._parts.on_note(text)

    @contextmanager
    def watching_peaks(self) -> Iterator[None]:
        """Run some of the work in the body; its largest current sets the range of the meter.

        Averaged samples do not show that single conversions are clipped, so the meter converts as fast as it can.
        """
        meter, restored = self._parts.meter, ExitStack()
        restored.enter_context(meter.fast_conversions())
        try:
            with self._parts.make_sampler() as sampler:
                yield
        finally:
            with suppress(PowerError):  # a meter that fails now fails again at the first sample, with the reason
                restored.close()
        self.peak_a = sampler.trace().largest_current_a
        if self.peak_a is None or meter.info.range_a is None or self.peak_a <= MAX_RANGE_SHARE * meter.info.range_a:
            return
        before_a = meter.info.range_a
        if meter.widen_range():
            self.note(f"peaks of {self.peak_a:.3g} A do not fit a range of {before_a:.3g} A: the widest one is used")
            self.sampler = self._parts.make_sampler()  # of the new range

    def measure_idle(self) -> None:
        """Wait until the board is cool and its power steady, then measure an idle window.

        A gap in the samples, if it is the only problem, makes it measure the window again.
        """
        clock, first = self._parts.clock, not self.idle
        margin_s = _MARGIN_PERIODS * self._parts.meter.info.nominal_period_s
        if self.sampler.failed is not None:
            return
        if first:
            clock.sleep(margin_s)
        else:
            self._cool_down()
        label = f"idle {len(self.idle) + 1}"
        self.stage(label)
        self.settling_s.append(self._settle())
        for last_attempt in _ATTEMPTS:
            self._mark_throttle()
            start_ns = clock.now_ns()
            clock.sleep(self._settings.idle_s)
            end_ns = clock.now_ns()
            clock.sleep(margin_s)
            span = self._end_span(start_ns, end_ns, label, counts=last_attempt)
            if span is not None:
                self.idle.append(span)
                break
        self.done_s += self._settings.idle_s
        if first:
            self._start_c = self._parts.board.temperature_c()

    def _settle(self) -> float:
        """Wait while power falls, as it does for a moment after work; returns the seconds waited."""
        info, clock = self._parts.meter.info, self._parts.clock
        if info.label == ESTIMATED:  # the model has no such moment
            return 0.0
        step_s = max(_SETTLE_STEP_S, _SETTLE_STEP_PERIODS * info.nominal_period_s)
        start_ns = clock.now_ns()
        clock.sleep(step_s)
        while (waited_s := (clock.now_ns() - start_ns) * 1e-9) < _SETTLE_LIMIT_S and self.sampler.failed is None:
            clock.sleep(step_s)
            if not self._falls(step_s):
                return waited_s + step_s
        note = f"power was still falling {_SETTLE_LIMIT_S:.0f} s after the work: idle power may be too high"
        if self.sampler.failed is None and note not in self.notes:
            self.note(note)
        return waited_s

    def _falls(self, step_s: float) -> bool:
        """Whether power was lower in the last `step_s` seconds than in those before, beyond the noise."""
        end_ns = self._parts.clock.now_ns()
        edges_ns = np.linspace(end_ns - 2e9 * step_s, end_ns, 2 * _SETTLE_BLOCKS + 1).astype(np.int64)
        try:
            energy_j = self.sampler.trace_since(int(edges_ns[0])).cumulative.at(edges_ns)
        except TraceInvalid:
            return False  # too few samples, which the window itself will show
        power_w = np.diff(energy_j) / (np.diff(edges_ns) * 1e-9)
        before, after = power_w[:_SETTLE_BLOCKS], power_w[_SETTLE_BLOCKS:]
        noise_w = math.hypot(standard_error(before.tolist()), standard_error(after.tolist()))
        return bool(before.mean() - after.mean() > _SETTLE_SIGMA * noise_w)

    def trial_attempts(self, label: str) -> Iterator[bool]:
        """Attempts at a trial, each to be ended by `end_trial`; yields whether it is the last one allowed."""
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
            return self.sampler.add_span(start_ns, stop_ns, label)
        self.sampler.add_span(start_ns, stop_ns, label + _REPEATED)
        return None

    def _mark_throttle(self) -> None:
        self.sampler.mark_throttle(self._parts.board.throttle_bits())

    def _has_gap(self, window: Span) -> bool:
        """Whether a gap in its samples is the only problem of a window, so that it should be measured again.

        A gap comes from another program that used the processor for a moment; other problems would come again.
        """
        trace = self.sampler.trace_since(window.t0_ns)
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
    """Measure trials of `n` calls between idle windows. An early end is noted in the recording or its trace."""
    before = parts.board.snapshot()
    notes = list(advice(before))
    trials: list[TimedPass] = []
    run = SampledRun(parts, settings, notes)
    with parts.working(), run.watching_peaks():
        call_s = _fastest_call_s(call, parts.clock)
    n = settings.n or max(1, math.ceil(settings.trial_s / call_s))
    n = settings.lengthened(n, n * call_s, parts.meter.info)
    with run.sampler as sampler:
        run.measure_idle()
        for number in range(settings.trials):
            if sampler.failed is None:
                trials.append(_call_trial(run, parts, call, n, f"trial {number + 1} of {settings.trials}"))
                run.measure_idle()
    recording = EnergyRecording(
        subjects=[Subject(name)],
        latency=[],
        trials=trials,
        planned_trials=settings.trials,
        board=before,
        board_after=parts.board.snapshot(),
        notes=notes,
        idle=run.idle,
        settling_s=run.settling_s,
        peak_a=run.peak_a,
    )
    return Measurement(recording, sampler.trace())


def _call_trial(run: SampledRun, parts: EnergyParts, call: Callable[[], object], n: int, label: str) -> TimedPass:
    """One trial of `n` calls; fewer if the meter fails."""
    chunk = max(1, n // _CHECKS)
    for last_attempt in run.trial_attempts(label):
        calls = 0
        with parts.working():
            parts.on_trial(True)
            start_ns = stop_ns = parts.clock.now_ns()
            while calls < n and run.sampler.failed is None:
                for _ in range(min(chunk, n - calls)):
                    call()
                calls = min(n, calls + chunk)
                stop_ns = parts.clock.now_ns()
            parts.on_trial(False)
        span = run.end_trial(start_ns, stop_ns, label, counts=last_attempt)
        if span is not None:
            break
    elapsed_s = (stop_ns - start_ns) * 1e-9
    return TimedPass(0, None, label, n, calls, elapsed_s, elapsed_s, [], [], None, span)


def _fastest_call_s(call: Callable[[], object], clock: Clock) -> float:
    """Seconds of the fastest of a few calls: the slower ones were disturbed."""
    times_s: list[float] = []
    while len(times_s) < _PROBE_CALLS or sum(times_s) < _PROBE_S:
        start_ns = clock.now_ns()
        call()
        times_s.append((clock.now_ns() - start_ns) * 1e-9)
    return max(min(times_s), 1e-7)

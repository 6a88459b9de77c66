"""The protocol of an energy measurement, whatever is measured: idle, trials, idle again. Imports no torch.

`measure_call` measures any function by it."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pi_dynn.board import Board, advice
from pi_dynn.clock import Clock
from pi_dynn.energy.records import EnergyRecording, Subject, TimedPass
from pi_dynn.errors import InputError
from pi_dynn.power import EnergyMeter, Sampler, Span, Trace, build_sampler, check_trace

IDLE_BEFORE, IDLE_AFTER = "idle before", "idle after"
_COOL_POLL_S = 1.0
_SETTLING_PERIODS = 4  # the first sample may cover the time before: the window must not begin with it
_TRIES = (False, False, True)  # how often a window is tried; True where it counts whatever it is like
_REPEATED = " (repeated)"
_ANY_GAP_PERIODS = 1e6


@dataclass(frozen=True)
class EnergySettings:
    """How to measure. `n` answers make a trial; None takes as many as last `trial_s` seconds.

    Before each trial the board may cool for up to `cool_limit_s` seconds until it is no more than `cool_within_c`
    degrees warmer than before the first: a warm board draws more.
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
            given = getattr(self, name)
            if given is not None and given < value:
                raise InputError(f"{name}={given}: give {value} or more")
        if not (self.idle_s > 0 and self.trial_s > 0):
            raise InputError(f"idle_s={self.idle_s}, trial_s={self.trial_s}: windows last longer than 0 s")


@dataclass(frozen=True)
class EnergyParts:
    """What a measurement needs from outside.

    `working` is entered around everything that is measured: a simulated load switches on by it.
    `on_stage(what, done_s, total_s)` is called between windows, never in one.
    """

    meter: EnergyMeter
    clock: Clock
    board: Board
    working: Callable[[], AbstractContextManager] = nullcontext
    on_stage: Callable[[str, float, float], None] = lambda what, done_s, total_s: None

    def make_sampler(self) -> Sampler:
        """A sampler of the meter that watches the board's throttle bits."""
        return build_sampler(self.meter, self.clock, throttle_bits=self.board.live_throttle_bits)


class Measurement(NamedTuple):
    """What was done, and what the meter saw meanwhile."""

    recording: EnergyRecording
    trace: Trace


class Attempt(Protocol):
    """One try at a trial. It may break off at any time, and then `keep` writes down what there is."""

    def run(self) -> None:
        """Do what is to be measured."""
        ...

    def span(self) -> tuple[int, int]:
        """When it began and ended, in nanoseconds of the clock."""
        ...

    def keep(self, window: Span) -> None:
        """Write the attempt down: it counts."""
        ...


class Windows:
    """The idle windows and trials of one sampled run, and the seconds of them that are done."""

    def __init__(self, parts: EnergyParts, settings: EnergySettings, sampler: Sampler, notes: list[str]) -> None:
        self._parts, self._settings, self._sampler, self._notes = parts, settings, sampler, notes
        self._start_c: float | None = None
        self.done_s = 0.0
        self.total_s = 2 * settings.idle_s

    def stage(self, what: str) -> None:
        """Tell what comes next."""
        self._parts.on_stage(what, self.done_s, self.total_s)

    def idle(self, label: str) -> None:
        """Do nothing for as long as the settings say."""
        if label == IDLE_BEFORE:
            self._parts.clock.sleep(_SETTLING_PERIODS * self._parts.meter.info.nominal_period_s)
        for last_try in _TRIES:
            self.stage(label)
            self._mark_throttle()
            start_ns = self._parts.clock.now_ns()
            self._parts.clock.sleep(self._settings.idle_s)
            window = Span(start_ns, self._parts.clock.now_ns(), label)
            if last_try or not self._has_gap(window):
                break
            self._sampler.add_span(*window[:2], label + _REPEATED)
        self._sampler.add_span(*window)
        self.done_s += self._settings.idle_s
        if label == IDLE_BEFORE:
            self._start_c = self._parts.board.temperature_c()

    def trial(self, label: str, make_attempt: Callable[[], Attempt]) -> None:
        """Measure one trial; again, if nothing but a gap in the samples spoils it."""
        self._cool_down()
        for last_try in _TRIES:
            self.stage(label)
            self._mark_throttle()
            attempt, whole = make_attempt(), False
            try:
                with self._parts.working():
                    attempt.run()
                whole = True
            finally:
                window = Span(*attempt.span(), label)
                counts = last_try or not whole or not self._has_gap(window)
                self._sampler.add_span(*window[:2], label if counts else label + _REPEATED)
                if counts:
                    attempt.keep(window)
                self._mark_throttle()
            if counts:
                break
        self.done_s += window.duration_s

    def _mark_throttle(self) -> None:
        self._sampler.mark_throttle(self._parts.board.throttle_bits())

    def _has_gap(self, window: Span) -> bool:
        """Whether nothing is wrong with a window but a gap in its samples: then it is worth measuring again.

        Something else had the processor for a moment. What else can go wrong would go wrong again, and must show.
        """
        trace = self._sampler.trace()
        quality = check_trace(trace, window)
        gap = not quality.valid and check_trace(trace, window, max_gap_periods=_ANY_GAP_PERIODS).valid
        if gap:
            self._notes.append(
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
                if note not in self._notes:
                    self._notes.append(note)
                return
            self.stage("cooling")
            clock.sleep(_COOL_POLL_S)


_LOOK_S = 0.2
_LOOK_CALLS = 5
_CHECKS = 100  # how often in a trial the sampler is looked after


def measure_call(parts: EnergyParts, call: Callable[[], object], name: str, settings: EnergySettings) -> Measurement:
    """Idle, trials of `n` calls, idle. Whatever ends it early is in the recording or its trace."""
    before = parts.board.snapshot()
    notes = list(advice(before))
    trials: list[TimedPass] = []
    sampler = parts.make_sampler()
    windows = Windows(parts, settings, sampler, notes)
    with parts.working():
        n = settings.n or _trial_length(call, parts.clock, settings.trial_s)
    with sampler:
        windows.idle(IDLE_BEFORE)
        for number in range(settings.trials):
            label = f"trial {number + 1} of {settings.trials}"
            if sampler.failed is None:
                windows.trial(label, lambda: _Calls(call, n, parts.clock, sampler, trials))
        if sampler.failed is None:
            windows.idle(IDLE_AFTER)
    subject = Subject(name, "", "", "", 0, 1, "", "", None, [], [])
    after = parts.board.snapshot()
    recording = EnergyRecording([subject], [], trials, settings.trials, before, after, notes)
    return Measurement(recording, sampler.trace())


def _trial_length(call: Callable[[], object], clock: Clock, trial_s: float) -> int:
    """How many calls last `trial_s`, going by the fastest of a few: a slow one was held up by something else."""
    times_s: list[float] = []
    while len(times_s) < _LOOK_CALLS or sum(times_s) < _LOOK_S:
        start_ns = clock.now_ns()
        call()
        times_s.append((clock.now_ns() - start_ns) * 1e-9)
    return max(1, math.ceil(trial_s / max(min(times_s), 1e-7)))


@dataclass
class _Calls:
    """One try at a trial of `n` calls."""

    call: Callable[[], object]
    n: int
    clock: Clock
    sampler: Sampler
    kept: list[TimedPass]
    done: int = 0
    start_ns: int = 0
    stop_ns: int = 0

    def run(self) -> None:
        call, chunk = self.call, max(1, self.n // _CHECKS)
        self.start_ns = self.stop_ns = self.clock.now_ns()
        while self.done < self.n and self.sampler.failed is None:
            todo = min(chunk, self.n - self.done)
            for _ in range(todo):
                call()
            self.done += todo
            self.stop_ns = self.clock.now_ns()

    def span(self) -> tuple[int, int]:
        return self.start_ns, self.stop_ns

    def keep(self, window: Span) -> None:
        elapsed_s = window.duration_s
        self.kept.append(TimedPass(0, None, window.label, self.n, self.done, elapsed_s, elapsed_s, [], [], None))

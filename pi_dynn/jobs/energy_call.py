"""The energy of any function, called again and again. Imports no torch."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pi_dynn.board import advice
from pi_dynn.clock import Clock
from pi_dynn.energy_records import EnergyRecording, Subject, TimedPass
from pi_dynn.jobs.energy_protocol import IDLE_AFTER, IDLE_BEFORE, EnergyParts, EnergySettings, Measurement, Windows
from pi_dynn.power import Sampler, Span

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
    after = parts.board.snapshot().to_dict()
    recording = EnergyRecording([subject], [], trials, settings.trials, before.to_dict(), after, notes)
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

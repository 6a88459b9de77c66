"""The protocol of an energy measurement: idle, trials, idle again, with the sampler running all along.

It only measures. `energy_results` turns what it returns into joules, now or years later.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from pi_dynn.board import Board, advice
from pi_dynn.clock import Clock
from pi_dynn.energy_records import EnergyRecording, TimedPass
from pi_dynn.errors import InputError
from pi_dynn.jobs.energy_trials import Candidate, Case, Tally, run_pass
from pi_dynn.power import EnergyMeter, Sampler, Span, Trace, check_trace

IDLE_BEFORE, IDLE_AFTER = "idle before", "idle after"
_WARM_UP_ROUNDS = 3
_LOOK = 20
_TRIES = (False, False, True)  # how often a window is tried; True where it counts whatever it is like
_REPEATED = " (repeated)"
_COOL_POLL_S = 1.0
_SETTLING_PERIODS = 4  # the first sample may cover the time before: the window must not begin with it


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

    `sampler` makes the sampler that fits the clock. `working` is entered around everything the network does: a
    simulated load switches on by it. `on_stage(what, done_s, total_s)` is called between windows, never in one.
    """

    meter: EnergyMeter
    clock: Clock
    board: Board
    sampler: Callable[..., Sampler] = Sampler
    working: Callable[[], AbstractContextManager] = nullcontext
    on_stage: Callable[[str, float, float], None] = lambda what, done_s, total_s: None


class Measurement(NamedTuple):
    """What was done, and what the meter saw meanwhile."""

    recording: EnergyRecording
    trace: Trace


def measure_energy(parts: EnergyParts, candidates: Sequence[Candidate], settings: EnergySettings) -> Measurement:
    """Measure one candidate, or a baseline and a candidate in turns (A B B A, so that drift cancels).

    An interrupt or a meter that fails ends it early; what there is comes back, and says so.

    Raises: InputError if there is nothing to answer.
    """
    if not 1 <= len(candidates) <= 2 or not all(candidate.inputs for candidate in candidates):
        raise InputError(f"measure 1 candidate, or a baseline and 1, on images: got {len(candidates)}")
    return _Run(parts, candidates, settings).run()


class _Run:
    def __init__(self, parts: EnergyParts, candidates: Sequence[Candidate], settings: EnergySettings) -> None:
        self._parts, self._candidates, self._settings = parts, candidates, settings
        self._latency: list[TimedPass] = []
        self._trials: list[TimedPass] = []
        self._notes: list[str] = []
        self._done_s = 0.0
        self._total_s = 2 * settings.idle_s
        self._cases = [Case(i, candidate) for i, candidate in enumerate(candidates)]
        if settings.each_exit:
            last = len(candidates) - 1
            exits = range(candidates[last].session.exits + 1)
            self._cases += [Case(last, candidates[last], forced_exit) for forced_exit in exits]

    def run(self) -> Measurement:
        parts, settings = self._parts, self._settings
        before = parts.board.snapshot()
        self._notes += advice(before)
        sampler = parts.sampler(parts.meter, parts.clock, throttle_bits=parts.board.live_throttle_bits)
        interrupted = False
        try:
            with parts.working():
                self._warm_up()
                lengths = [self._measure_latency(case) for case in self._cases]
            with sampler:
                self._sample(sampler, lengths)
        except KeyboardInterrupt:
            interrupted = True
        recording = EnergyRecording(
            subjects=[candidate.subject(settings.batch_size) for candidate in self._candidates],
            latency=self._latency,
            trials=self._trials,
            planned_trials=settings.trials,
            board=before.to_dict(),
            board_after=parts.board.snapshot().to_dict(),
            notes=self._notes,
            interrupted=interrupted,
        )
        return Measurement(recording, sampler.trace())

    def _warm_up(self) -> None:
        """Visit every depth with real images: the first visits allocate, and are slower."""
        self._stage("warm-up")
        batch = self._settings.batch_size
        for subject, candidate in enumerate(self._candidates):
            for forced_exit in [*range(candidate.session.exits + 1), None]:
                case = Case(subject, candidate, forced_exit)
                for _ in candidate.answers(case.thresholds, _WARM_UP_ROUNDS * batch, batch):
                    pass

    def _trial_length(self, case: Case) -> int:
        """How many answers make a trial: as many as asked for, or as a short look says will last long enough.

        Forced exits take no more than that: their answers are all alike.
        """
        settings, images = self._settings, len(case.candidate.inputs)
        if settings.n is not None and case.forced_exit is None:
            return settings.n
        look = Tally()
        run_pass(case, min(images, _LOOK) * settings.batch_size, settings.batch_size, self._parts.clock, look)
        enough = math.ceil(settings.trial_s * len(look.answers) / max(look.elapsed_s, 1e-6))
        if images < enough:
            enough = math.ceil(enough / images) * images  # every image equally often, so that the mix is the data's
        return enough if settings.n is None else min(settings.n, enough)

    def _measure_latency(self, case: Case) -> int:
        """Time a trial's answers without the sampler; returns how many there are."""
        self._stage(f"latency, {case.title}")
        n = self._trial_length(case)
        tally = Tally()
        try:
            run_pass(case, n, self._settings.batch_size, self._parts.clock, tally)
        finally:
            self._latency.append(tally.record(case, "", n))
        self._total_s += self._settings.trials * tally.elapsed_s
        return n

    def _sample(self, sampler: Sampler, lengths: list[int]) -> None:
        """Everything between the first and the last sample."""
        self._parts.clock.sleep(_SETTLING_PERIODS * self._parts.meter.info.nominal_period_s)
        self._idle(sampler, IDLE_BEFORE)
        start_c = self._parts.board.temperature_c()
        pairs = list(zip(self._cases, lengths, strict=True))
        for number in range(self._settings.trials):
            for case, n in pairs if number % 2 == 0 else reversed(pairs):
                if sampler.failed is not None:
                    return
                self._cool_down(start_c)
                self._trial(sampler, number, case, n)
        if sampler.failed is None:
            self._idle(sampler, IDLE_AFTER)

    def _idle(self, sampler: Sampler, label: str) -> None:
        clock = self._parts.clock
        for last_try in _TRIES:
            self._stage(label)
            sampler.mark_throttle(self._parts.board.throttle_bits())
            start_ns = clock.now_ns()
            clock.sleep(self._settings.idle_s)
            window = Span(start_ns, clock.now_ns(), label)
            if last_try or not self._has_gap(sampler, window):
                break
            sampler.add_span(*window[:2], label + _REPEATED)
        sampler.add_span(*window)
        self._done_s += self._settings.idle_s

    def _trial(self, sampler: Sampler, number: int, case: Case, n: int) -> None:
        label = f"trial {number + 1}, {case.title}"
        for last_try in _TRIES:
            self._stage(f"trial {number + 1} of {self._settings.trials}, {case.title}")
            sampler.mark_throttle(self._parts.board.throttle_bits())
            tally, whole = Tally(), False
            try:
                self._answer(sampler, case, n, tally)
                whole = True
            finally:
                window = Span(tally.start_ns, tally.stops_ns[-1] if tally.stops_ns else tally.start_ns, label)
                if last_try or not whole or not self._has_gap(sampler, window):
                    self._keep(sampler, window, tally, case, n)
                sampler.mark_throttle(self._parts.board.throttle_bits())
            if self._trials and self._trials[-1].label == label:
                break
            sampler.add_span(*window[:2], label + _REPEATED)
        self._done_s += tally.elapsed_s

    def _answer(self, sampler: Sampler, case: Case, n: int, tally: Tally) -> None:
        with self._parts.working():
            run_pass(case, n, self._settings.batch_size, self._parts.clock, tally, lambda _: sampler.failed is not None)

    def _keep(self, sampler: Sampler, window: Span, tally: Tally, case: Case, n: int) -> None:
        """Write the trial down: its span, that of every inference in it, and its answers."""
        sampler.add_span(*window)
        start_ns = tally.start_ns
        for stop_ns, answer in zip(tally.stops_ns, tally.answers, strict=False):
            sampler.add_span(start_ns, stop_ns, f"exit {answer.exit_index + 1}")
            start_ns = stop_ns
        self._trials.append(tally.record(case, window.label, n))

    def _has_gap(self, sampler: Sampler, window: Span) -> bool:
        """Whether nothing is wrong with a window but a gap in its samples: then it is worth measuring again.

        Something else had the processor for a moment. What else can go wrong would go wrong again, and must show.
        """
        trace = sampler.trace()
        quality = check_trace(trace, window)
        gap = not quality.valid and check_trace(trace, window, max_gap_periods=math.inf).valid
        if gap:
            self._notes.append(
                f"{window.label} was measured again: a gap of {quality.largest_gap_s:.3g} s in its samples"
            )
        return gap

    def _cool_down(self, start_c: float | None) -> None:
        settings, clock, board = self._settings, self._parts.clock, self._parts.board
        end_ns = clock.now_ns() + round(settings.cool_limit_s * 1e9)
        while start_c is not None and (now_c := board.temperature_c()) is not None:
            if now_c <= start_c + settings.cool_within_c:
                return
            if clock.now_ns() >= end_ns:
                note = f"the board did not cool to within {settings.cool_within_c:g} C between trials: add a fan"
                if note not in self._notes:
                    self._notes.append(note)
                return
            self._stage("cooling")
            clock.sleep(_COOL_POLL_S)

    def _stage(self, what: str) -> None:
        self._parts.on_stage(what, self._done_s, self._total_s)

"""The protocol of an energy measurement: idle, trials, idle again, with the sampler running all along.

It only measures. `energy_results` turns what it returns into joules, now or years later.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from pi_dynn.board import advice
from pi_dynn.clock import Clock
from pi_dynn.energy_records import EnergyRecording, TimedPass
from pi_dynn.errors import InputError
from pi_dynn.jobs.energy_protocol import IDLE_AFTER, IDLE_BEFORE, EnergyParts, EnergySettings, Measurement, Windows
from pi_dynn.jobs.energy_trials import Candidate, Case, Tally, run_pass
from pi_dynn.power import Sampler, Span

_WARM_UP_ROUNDS = 3
_LOOK = 20
_FEW_IMAGES = 100


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
        self._sampler = parts.make_sampler()
        self._windows = Windows(parts, settings, self._sampler, self._notes)
        self._cases = [Case(i, candidate) for i, candidate in enumerate(candidates)]
        if settings.each_exit:
            last = len(candidates) - 1
            exits = range(candidates[last].session.exits + 1)
            self._cases += [Case(last, candidates[last], forced_exit) for forced_exit in exits]

    def run(self) -> Measurement:
        parts, settings = self._parts, self._settings
        before = parts.board.snapshot()
        self._notes += advice(before)
        images = min(len(candidate.inputs) for candidate in self._candidates)
        if images < _FEW_IMAGES:
            self._notes.append(f"the mix of exits is that of {images} images: give more of your own with --data")
        interrupted = False
        try:
            with parts.working():
                self._warm_up()
                lengths = [self._measure_latency(case) for case in self._cases]
            with self._sampler:
                self._sample(lengths)
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
        return Measurement(recording, self._sampler.trace())

    def _warm_up(self) -> None:
        """Visit every depth with real images: the first visits allocate, and are slower."""
        self._windows.stage("warm-up")
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
        answers = min(images, _LOOK) * settings.batch_size
        looks = [Tally(), Tally()]
        for look in looks:
            run_pass(case, answers, settings.batch_size, self._parts.clock, look)
        fastest_s = min(look.elapsed_s for look in looks)  # the other was held up by something else
        enough = math.ceil(settings.trial_s * answers / max(fastest_s, 1e-6))
        if images < enough:
            enough = math.ceil(enough / images) * images  # every image equally often, so that the mix is the data's
        return enough if settings.n is None else min(settings.n, enough)

    def _measure_latency(self, case: Case) -> int:
        """Time a trial's answers without the sampler; returns how many there are."""
        self._windows.stage(f"latency, {case.title}")
        n = self._trial_length(case)
        tally = Tally()
        try:
            run_pass(case, n, self._settings.batch_size, self._parts.clock, tally)
        finally:
            self._latency.append(tally.record(case, "", n))
        self._windows.total_s += self._settings.trials * tally.elapsed_s
        return n

    def _sample(self, lengths: list[int]) -> None:
        """Everything between the first and the last sample."""
        self._windows.idle(IDLE_BEFORE)
        pairs = list(zip(self._cases, lengths, strict=True))
        for number in range(self._settings.trials):
            for case, n in pairs if number % 2 == 0 else reversed(pairs):
                if self._sampler.failed is not None:
                    return
                label = f"trial {number + 1} of {self._settings.trials}, {case.title}"
                self._windows.trial(label, lambda case=case, n=n: self._attempt(case, n))
        if self._sampler.failed is None:
            self._windows.idle(IDLE_AFTER)

    def _attempt(self, case: Case, n: int) -> "_Answers":
        return _Answers(case, n, self._settings.batch_size, self._parts.clock, self._sampler, self._trials)


@dataclass
class _Answers:
    """One try at a trial of `n` answers, written to `kept` if it counts."""

    case: Case
    n: int
    batch_size: int
    clock: Clock
    sampler: Sampler
    kept: list[TimedPass]
    tally: Tally = field(default_factory=Tally)

    def run(self) -> None:
        run_pass(self.case, self.n, self.batch_size, self.clock, self.tally, lambda _: self.sampler.failed is not None)

    def span(self) -> tuple[int, int]:
        return self.tally.start_ns, self.tally.stops_ns[-1] if self.tally.stops_ns else self.tally.start_ns

    def keep(self, window: Span) -> None:
        """Write down the answers, and a span for every inference."""
        start_ns = window.t0_ns
        for stop_ns, answer in zip(self.tally.stops_ns, self.tally.answers, strict=False):
            self.sampler.add_span(start_ns, stop_ns, f"exit {answer.exit_index + 1}")
            start_ns = stop_ns
        self.kept.append(self.tally.record(self.case, window.label, self.n))

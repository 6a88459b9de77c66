"""Measurement of the energy of a session's answers, on images decoded beforehand.

It records only; `energy_results` computes the figures from its recording, now or later.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from pi_dynn.board import advice
from pi_dynn.clock import Clock
from pi_dynn.data.folders import ImageFolder
from pi_dynn.data.layouts import open_images
from pi_dynn.energy.protocol import EnergyParts, EnergySettings, Measurement, SampledRun
from pi_dynn.energy.records import EnergyRecording, Subject, TimedPass
from pi_dynn.errors import InputError
from pi_dynn.power.meter import SIMULATED
from pi_dynn.records import Prediction
from pi_dynn.runtime.session import Session
from pi_dynn.text import counted

if TYPE_CHECKING:
    from pi_dynn.energy.rehearsal import RehearsedSession


@dataclass(frozen=True)
class Candidate:
    """A session and its decoded inputs, answered in turn and from the start again.

    `labels` are class indices of the inputs, or None if unknown.
    """

    name: str
    session: "Session | RehearsedSession"
    inputs: Sequence[np.ndarray]
    labels: Sequence[int] | None
    dataset: str
    thresholds: list[float]

    def subject(self, batch_size: int) -> Subject:
        """The candidate as a record."""
        manifest = self.session.manifest
        return Subject(
            name=self.name,
            model=manifest.model,
            precision=manifest.precision,
            engine=self.session.engine,
            threads=self.session.threads,
            batch_size=batch_size,
            bundle=self.session.bundle.sha256,
            dataset=self.dataset,
            parameters=manifest.notes.get("parameters"),
            blocks=list(manifest.blocks),
            thresholds=self.thresholds,
        )

    def answers(self, thresholds: list[float], n: int, batch_size: int) -> Iterator[Prediction]:
        """`n` answers, one by one."""
        inputs = islice(cycle(self.inputs), n)
        if batch_size > 1:
            yield from self.session.classify_many(inputs, batch_size, thresholds)
            return
        for x in inputs:
            yield self.session.classify(x, thresholds)


@dataclass(frozen=True)
class Case:
    """A candidate with its natural mix of exits, or with all images forced to leave at one exit."""

    subject: int
    candidate: Candidate
    forced_exit: int | None = None

    @property
    def thresholds(self) -> list[float]:
        """One value per exit; with a forced exit those at which every image leaves there."""
        if self.forced_exit is None:
            return self.candidate.thresholds
        return self.candidate.session.forced_thresholds(self.forced_exit)

    @property
    def title(self) -> str:
        """The name of the case for people."""
        where = "" if self.forced_exit is None else f", exit {self.forced_exit + 1} forced"
        return f"subject {self.subject + 1}{where}"


@dataclass
class Tally:
    """The answers of one pass and their times; valid at any time, so that a pass may be interrupted."""

    start_ns: int = 0
    stops_ns: list[int] = field(default_factory=list)
    answers: list[Prediction] = field(default_factory=list)

    @property
    def stop_ns(self) -> int:
        """The end of the last inference; the start before there is one."""
        return self.stops_ns[-1] if self.stops_ns else self.start_ns

    @property
    def elapsed_s(self) -> float:
        """From the start to the end of the last inference."""
        return (self.stop_ns - self.start_ns) * 1e-9

    def record(self, case: Case, label: str, planned_n: int, span: int | None = None) -> TimedPass:
        """The record of the pass; `span` is the index of its span in the trace, None without a sampler."""
        exits = case.candidate.session.exits + 1
        counts, forward_s, right = [0] * exits, [0.0] * exits, [0] * exits
        labels = case.candidate.labels
        for i, answer in enumerate(self.answers):
            counts[answer.exit_index] += 1
            forward_s[answer.exit_index] += answer.latency_s
            if labels is not None:
                right[answer.exit_index] += answer.class_index == labels[i % len(labels)]
        return TimedPass(
            subject=case.subject,
            forced_exit=case.forced_exit,
            label=label,
            planned_n=planned_n,
            n=len(self.answers),
            elapsed_s=self.elapsed_s,
            forward_s=sum(forward_s),
            exit_counts=counts,
            exit_forward_s=forward_s,
            exit_right=None if labels is None else right,
            span=span,
        )


def run_pass(
    case: Case, n: int, batch_size: int, clock: Clock, tally: Tally, enough: Callable[[Tally], bool] = lambda _: False
) -> None:
    """Answer `n` times, or until `enough` returns True, and write all answers to `tally`.

    Nothing is summed here, because this loop is what is being measured.
    """
    answers = case.candidate.answers(case.thresholds, n, batch_size)
    tally.start_ns = clock.now_ns()
    for answer in answers:
        tally.answers.append(answer)
        tally.stops_ns.append(clock.now_ns())
        if enough(tally):
            break


_WARM_UP_ROUNDS = 3
_PROBE_IMAGES = 20
_FEW_IMAGES = 100


def measure_energy(parts: EnergyParts, candidates: Sequence[Candidate], settings: EnergySettings) -> Measurement:
    """Measure one candidate, or a baseline and a candidate in alternation (A B B A, so that drift cancels).

    After an interrupt or a failure of the meter it returns what was measured so far, marked as such.

    Raises: InputError for another number of candidates, or one without inputs.
    """
    if not 1 <= len(candidates) <= 2 or not all(candidate.inputs for candidate in candidates):
        raise InputError(f"measure 1 candidate, or a baseline and 1, on images: got {len(candidates)}")
    return _MeasurementRun(parts, candidates, settings).run()


class _MeasurementRun:
    def __init__(self, parts: EnergyParts, candidates: Sequence[Candidate], settings: EnergySettings) -> None:
        self._parts, self._candidates, self._settings = parts, candidates, settings
        self._latency: list[TimedPass] = []
        self._trials: list[TimedPass] = []
        self._notes: list[str] = []
        self._cases = [Case(i, candidate) for i, candidate in enumerate(candidates)]
        if settings.each_exit:
            last = len(candidates) - 1
            exits = range(candidates[last].session.exits + 1)
            self._cases += [Case(last, candidates[last], forced_exit) for forced_exit in exits]
        self._run = SampledRun(parts, settings, self._notes, len(self._cases))

    def run(self) -> Measurement:
        parts, settings = self._parts, self._settings
        before = parts.board.snapshot()
        self._notes += advice(before)
        images = min(len(candidate.inputs) for candidate in self._candidates)
        if images < _FEW_IMAGES:
            self._notes.append(
                f"the mix of exits is that of {counted(images, 'image')}: give more of your own with --data"
            )
        interrupted = False
        try:
            with parts.working():
                with self._run.watching_peaks():
                    self._warm_up()
                lengths = [self._measure_latency(case) for case in self._cases]
            self._announce()
            with self._run.sampler:
                self._sample(lengths)
        except KeyboardInterrupt:
            interrupted = True
        recording = EnergyRecording(
            subjects=[candidate.subject(settings.batch_size) for candidate in self._candidates],
            latency=self._latency,
            trials=self._trials,
            planned_trials=settings.trials,
            board=before,
            board_after=parts.board.snapshot(),
            notes=self._notes,
            interrupted=interrupted,
            idle=self._run.idle,
            settling_s=self._run.settling_s,
            peak_a=self._run.peak_a,
        )
        return Measurement(recording, self._run.sampler.trace())

    def _announce(self) -> None:
        """Say how long the rest takes; a simulation waits for nothing."""
        if self._parts.meter.info.label != SIMULATED:
            trials, duration = self._settings.trials * len(self._cases), timedelta(seconds=round(self._run.total_s))
            self._parts.on_note(f"{counted(trials, 'trial')} with idle windows between them: about {duration} more")

    def _warm_up(self) -> None:
        """Run every depth on real images, because the first runs allocate memory and are slower."""
        self._run.stage("warm-up")
        batch = self._settings.batch_size
        for subject, candidate in enumerate(self._candidates):
            for forced_exit in [*range(candidate.session.exits + 1), None]:
                case = Case(subject, candidate, forced_exit)
                for _ in candidate.answers(case.thresholds, _WARM_UP_ROUNDS * batch, batch):
                    pass

    def _trial_length(self, case: Case) -> int:
        """The number of answers in a trial: that of the settings, or an estimate from two short probe passes.

        Forced exits use the smaller of the two, because their answers all take the same time.
        """
        settings, images = self._settings, len(case.candidate.inputs)
        if settings.n is not None and case.forced_exit is None:
            return settings.n
        answers = min(images, _PROBE_IMAGES) * settings.batch_size
        probes = [Tally(), Tally()]
        for probe in probes:
            run_pass(case, answers, settings.batch_size, self._parts.clock, probe)
        fastest_s = min(probe.elapsed_s for probe in probes)  # the slower one was delayed by other programs
        enough = math.ceil(settings.trial_s * answers / max(fastest_s, 1e-6))
        if images < enough:
            enough = math.ceil(enough / images) * images  # every image equally often: the mix is that of the data
        return enough if settings.n is None else min(settings.n, enough)

    def _measure_latency(self, case: Case) -> int:
        """Time the answers of a trial without the sampler; returns their number.

        A pass too short for a trial is timed again with as many answers as a trial needs.
        """
        self._run.stage(f"latency, {case.title}")
        settings, info = self._settings, self._parts.meter.info
        n = self._trial_length(case)
        tally = self._time_pass(case, n)
        longer = settings.lengthened(n, tally.elapsed_s, info)
        if longer > n:
            self._run.note(
                f"{n:,} answers take {tally.elapsed_s:.2g} s, too short for the meter {info.name}: "
                f"every trial has {longer:,}"
            )
            n, tally = longer, self._time_pass(case, longer)
        self._latency.append(tally.record(case, "", n))
        self._run.total_s += settings.trials * tally.elapsed_s
        return n

    def _time_pass(self, case: Case, n: int) -> Tally:
        """The tally of `n` answers; if it is interrupted, its part is kept."""
        tally = Tally()
        try:
            run_pass(case, n, self._settings.batch_size, self._parts.clock, tally)
        except BaseException:
            self._latency.append(tally.record(case, "", n))
            raise
        return tally

    def _sample(self, lengths: list[int]) -> None:
        """Measure all trials, with idle windows before and after each, while the sampler runs."""
        self._run.measure_idle()
        pairs = list(zip(self._cases, lengths, strict=True))
        for number in range(self._settings.trials):
            for case, n in pairs if number % 2 == 0 else reversed(pairs):
                if self._run.sampler.failed is not None:
                    return
                self._measure_trial(case, n, f"trial {number + 1} of {self._settings.trials}, {case.title}")
                self._run.measure_idle()

    def _measure_trial(self, case: Case, n: int, label: str) -> None:
        """Measure one trial of `n` answers; if it is interrupted, its part is kept."""
        clock, batch_size = self._parts.clock, self._settings.batch_size
        for last_attempt in self._run.trial_attempts(label):
            tally, broken_off = Tally(), True
            try:
                with self._parts.working():
                    self._parts.on_trial(True)
                    run_pass(case, n, batch_size, clock, tally, lambda _: self._run.sampler.failed is not None)
                broken_off = False
            finally:
                self._parts.on_trial(False)
                span = self._run.end_trial(tally.start_ns, tally.stop_ns, label, counts=last_attempt or broken_off)
                if span is not None:
                    self._keep_trial(tally, case, n, label, span)
            if span is not None:
                return

    def _keep_trial(self, tally: Tally, case: Case, n: int, label: str, span: int) -> None:
        """Record the answers, and a span for every inference."""
        start_ns = tally.start_ns
        for stop_ns, answer in zip(tally.stops_ns, tally.answers, strict=False):
            self._run.sampler.add_span(start_ns, stop_ns, f"exit {answer.exit_index + 1}")
            start_ns = stop_ns
        self._trials.append(tally.record(case, label, n, span))


_MEMORY_SHARE = 0.25  # of the free memory: a small board needs the rest for other programs
_FLOAT_BYTES = 4


def load_candidate(
    session: "Session | RehearsedSession", images: ImageFolder | Path, n: int | None, name: str | None = None
) -> Candidate:
    """The session with images, or those that `open_images` finds in a folder.

    Of many a random part is drawn, the same in every run: at most `n` images, and at most as many as
    fit into a quarter of the free memory. Labels are known if every folder is named after a class.

    Raises: DatasetError if there are no images, InputError if one cannot be read.
    """
    data = open_images(images) if isinstance(images, Path) else images
    manifest = session.manifest
    known = {label: index for index, label in enumerate(manifest.labels)}
    drawn = data.subset(_fair_part(len(data), n, session.preprocess.size))
    labels = [known[name] for name in (data.classes[label] for label in drawn.labels) if name in known]
    return Candidate(
        name=name or f"{manifest.model} {manifest.precision}",
        session=session,
        inputs=[session.preprocess.array(drawn.source(i)) for i in range(len(drawn))],
        labels=labels if len(labels) == len(drawn) else None,
        dataset=data.root.name,
        thresholds=session.resolve_thresholds(None),
    )


def _fair_part(images: int, n: int | None, size: int) -> list[int]:
    """A shuffled part of so many images, the same every time."""
    fitting = int(_MEMORY_SHARE * psutil.virtual_memory().available / (3 * size * size * _FLOAT_BYTES))
    count = min(images, max(1, fitting), n if n is not None else images)
    return [int(i) for i in np.random.default_rng(0).permutation(images)[:count]]

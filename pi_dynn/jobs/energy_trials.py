"""One pass of answers, timed and counted: what a latency pass and an energy trial have in common."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

from torch import Tensor

from pi_dynn.clock import Clock
from pi_dynn.energy_records import Subject, TimedPass
from pi_dynn.records import Prediction
from pi_dynn.runtime.session import Session


@dataclass(frozen=True)
class Candidate:
    """A session and what it is to answer: decoded inputs, taken in turn and again from the start.

    `labels` are class indices of the inputs, or None where they are not known.
    """

    name: str
    session: Session
    inputs: Sequence[Tensor]
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
    """A candidate with its natural mix of exits, or with everyone forced out at one exit."""

    subject: int
    candidate: Candidate
    forced_exit: int | None = None

    @property
    def thresholds(self) -> list[float]:
        """One value for each exit; with a forced exit those that let every image leave there."""
        if self.forced_exit is None:
            return self.candidate.thresholds
        return self.candidate.session.forced_thresholds(self.forced_exit)

    @property
    def title(self) -> str:
        """The case in words; unique within a run, for spans are named after it."""
        where = "" if self.forced_exit is None else f", exit {self.forced_exit + 1} forced"
        return f"subject {self.subject + 1}{where}"


@dataclass
class Tally:
    """The answers of one pass, and when each was there. Good at any time, so that a pass may break off."""

    start_ns: int = 0
    stops_ns: list[int] = field(default_factory=list)
    answers: list[Prediction] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        """From the start to the end of the last inference; 0 before there is one."""
        return (self.stops_ns[-1] - self.start_ns) * 1e-9 if self.stops_ns else 0.0

    def record(self, case: Case, label: str, planned_n: int) -> TimedPass:
        """The pass in numbers."""
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
        )


def run_pass(
    case: Case, n: int, batch_size: int, clock: Clock, tally: Tally, enough: Callable[[Tally], bool] = lambda _: False
) -> None:
    """Answer `n` times, or until `enough` says so, and write everything to `tally`.

    Nothing is added up here: the loop is what is being measured.
    """
    answers = case.candidate.answers(case.thresholds, n, batch_size)
    tally.start_ns = clock.now_ns()
    for answer in answers:
        tally.answers.append(answer)
        tally.stops_ns.append(clock.now_ns())
        if enough(tally):
            break

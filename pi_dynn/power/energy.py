"""The energy of one inference from a trace: gross, net of idle power, and its confidence interval.

net = latency x (active power - idle power). Idle power is measured before and after every trial, with the sampler
running and the model loaded, and interpolated linearly in between, because boards warm up. Each trial has
idle samples of its own, so that trials are independent, and the spread between them shows what idle power
does between windows, however slowly it wanders.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pi_dynn import stats
from pi_dynn.errors import InputError
from pi_dynn.power.trace import Span, Trace
from pi_dynn.records import Record

SHARED_PART = 0.4
"""Of an idle window between two trials this part belongs to each, the nearest one. What is left between them keeps
their errors apart where idle power wanders within seconds."""


def improvement(baseline_j: float, energy_j: float) -> float:
    """The share of the baseline's energy that is saved: 0.25 is a quarter less, negative is worse.

    >>> round(improvement(4.0, 3.0), 2)
    0.25

    Raises: InputError if the baseline is not positive.
    """
    if not baseline_j > 0.0:
        raise InputError(f"an improvement needs a baseline above 0 J, got {baseline_j!r}: measure the baseline again")
    return 1.0 - energy_j / baseline_j


@dataclass(frozen=True)
class IdlePower(Record):
    """The idle windows of a run: mean power, the largest difference between windows, and the slope over time."""

    mean_w: float
    range_w: float
    drift_w_per_s: float


def idle_power(trace: Trace, windows: Sequence[Span]) -> IdlePower:
    """The idle power of a run from all its windows, one or more.

    Raises: TraceInvalid if the trace holds fewer than two usable samples.
    """
    means_w = [trace.mean_power_w(window) for window in windows]
    middles_s = [(window.t0_ns + window.t1_ns) / 2e9 for window in windows]
    drift = float(np.polyfit(np.subtract(middles_s, middles_s[0]), means_w, 1)[0]) if len(windows) > 1 else 0.0
    return IdlePower(float(np.mean(means_w)), max(means_w) - min(means_w), drift)


@dataclass(frozen=True)
class IdleNeighbours:
    """The idle samples of one trial: spans before and after it; None where there is none.

    `own` says that no other trial uses them.
    """

    before: Span | None
    after: Span | None
    own: bool


def idle_neighbours(idle: Sequence[Span], trials: Sequence[Span]) -> list[IdleNeighbours]:
    """The neighbouring idle windows of every trial; of a window between two trials each has its nearest part.

    In a run with idle windows at both ends only, all trials share them.
    """
    windows = sorted(idle)
    befores = [max((w for w in windows if w.t1_ns <= trial.t0_ns), default=None) for trial in trials]
    afters = [min((w for w in windows if w.t0_ns >= trial.t1_ns), default=None) for trial in trials]
    return [
        IdleNeighbours(
            before=_part(before, last=True) if before in afters else before,
            after=_part(after, last=False) if after in befores else after,
            own=befores.count(before) == 1 and afters.count(after) == 1,
        )
        for before, after in zip(befores, afters, strict=True)
    ]


def _part(window: Span | None, last: bool) -> Span | None:
    if window is None:
        return None
    length_ns = round(SHARED_PART * (window.t1_ns - window.t0_ns))
    if last:
        return window._replace(t0_ns=window.t1_ns - length_ns)
    return window._replace(t1_ns=window.t0_ns + length_ns)


@dataclass(frozen=True)
class TrialEnergy(Record):
    """One trial: `n` inferences in one window. Energies and latency are per inference, SI units."""

    n: int
    duration_s: float
    latency_s: float
    gross_j: float
    net_j: float
    active_power_w: float
    idle_power_w: float


def trial_energy(trace: Trace, span: Span, n: int, idle: Sequence[Span]) -> TrialEnergy:
    """The energy of each of the `n` inferences in `span`: that of the window, divided by `n`.

    `idle` are the spans of idle power before and after it; with one of them idle power is taken as constant.

    Raises: InputError if `n` is not positive or there is no idle span, TraceInvalid if the trace holds
    fewer than two usable samples.
    """
    if n < 1:
        raise InputError(f"a trial holds 1 inference or more, got {n!r}: raise n")
    if not idle:
        raise InputError("a trial needs idle power before or after it: measure an idle window")
    energy = trace.energy_j(span)
    duration_s = span.duration_s
    middles_ns = [(one.t0_ns + one.t1_ns) / 2 for one in idle]
    idle_w = float(np.interp((span.t0_ns + span.t1_ns) / 2, middles_ns, [trace.mean_power_w(one) for one in idle]))
    return TrialEnergy(
        n=n,
        duration_s=duration_s,
        latency_s=duration_s / n,
        gross_j=energy / n,
        net_j=(energy - idle_w * duration_s) / n,
        active_power_w=energy / duration_s,
        idle_power_w=idle_w,
    )


@dataclass(frozen=True)
class RunEnergy(Record):
    """All trials of one run: means per inference with 95 % intervals of Student's t, [low, high].

    The intervals are None with fewer than three trials, or if the trials share their idle windows. `net_se_j` is
    the standard error of the mean over trials.
    """

    net_j: float
    net_ci95_j: tuple[float, float] | None
    gross_j: float
    gross_ci95_j: tuple[float, float] | None
    latency_s: float
    active_power_w: float
    idle_power_w: float
    n: int
    trials: int
    net_se_j: float

    @property
    def resolved(self) -> bool:
        """Whether the net energy is shown to be above zero."""
        return self.net_ci95_j is not None and self.net_ci95_j[0] > 0.0

    @property
    def trials_to_resolve(self) -> int | None:
        """How many trials would resolve the net energy with this spread; None if it is not above zero at all."""
        if self.net_j <= 0.0 or self.net_ci95_j is None:
            return None
        spread = self.net_se_j * math.sqrt(self.trials) / self.net_j
        count = stats.LEAST_TRIALS
        while stats.student_t95(count - 1) * spread >= math.sqrt(count):
            count += max(1, count // 10)
        return count


def run_energy(trials: Sequence[TrialEnergy], independent: bool = True) -> RunEnergy:
    """The energy of one run from its trials, all with the same number `n` of inferences.

    `independent` says whether every trial has idle samples of its own; without that there are no intervals.

    Raises: InputError if there is no trial, or their numbers of inferences differ.
    """
    lengths = sorted({trial.n for trial in trials})
    if len(lengths) != 1:
        raise InputError(f"the trials of a run hold the same number of inferences, got {lengths!r}: keep whole trials")
    net_j = [trial.net_j for trial in trials]
    gross_j = [trial.gross_j for trial in trials]
    return RunEnergy(
        net_j=_mean(net_j),
        net_ci95_j=stats.mean_interval(net_j) if independent else None,
        gross_j=_mean(gross_j),
        gross_ci95_j=stats.mean_interval(gross_j),
        latency_s=_mean([trial.latency_s for trial in trials]),
        active_power_w=_mean([trial.active_power_w for trial in trials]),
        idle_power_w=_mean([trial.idle_power_w for trial in trials]),
        n=lengths[0],
        trials=len(trials),
        net_se_j=stats.standard_error(net_j),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))

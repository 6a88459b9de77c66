"""The energy of one inference from a trace: gross, net of idle power, and its uncertainty.

net = latency x (active power - idle power). Idle power is measured before and after the run, with
the sampler running and the model loaded, and interpolated linearly in between, because boards warm up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pi_dynn import stats
from pi_dynn.errors import InputError
from pi_dynn.power.integrate import CumulativeEnergy
from pi_dynn.power.trace import Span, Trace
from pi_dynn.records import Record

IDLE_BLOCKS = 10
RESOLVED_SIGMA = 3.0


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
class IdleBaseline(Record):
    """Idle power as a straight line through the window before the run and the one after.

    With one window the line is flat. `sd_w` is the standard deviation of single samples around it, `error_w` the
    standard error of its mean, computed from blocks of samples because slow drifts are correlated.
    """

    t_before_ns: int
    before_power_w: float
    t_after_ns: int
    after_power_w: float
    sd_w: float
    error_w: float

    @property
    def drift_w_per_s(self) -> float:
        """The slope of idle power between the two windows."""
        if self.t_after_ns == self.t_before_ns:
            return 0.0
        return (self.after_power_w - self.before_power_w) / ((self.t_after_ns - self.t_before_ns) * 1e-9)

    def mean_power_w(self, t0_ns: int, t1_ns: int) -> float:
        """Mean idle power from `t0_ns` to `t1_ns`: the value of the line in the middle."""
        middle_ns = (t0_ns + t1_ns) / 2
        return self.before_power_w + self.drift_w_per_s * (middle_ns - self.t_before_ns) * 1e-9


def idle_baseline(trace: Trace, before: Span, after: Span | None = None) -> IdleBaseline:
    """The idle baseline from one window, or from one before and one after the run.

    Raises: TraceInvalid if a window holds fewer than two usable samples.
    """
    energy = trace.cumulative
    windows = (before,) if after is None else (before, after)
    means_w = [energy.between(span.t0_ns, span.t1_ns) / span.duration_s for span in windows]
    spreads_w, errors_w = zip(*(_spread_w(energy, span) for span in windows), strict=True)
    return IdleBaseline(
        t_before_ns=(before.t0_ns + before.t1_ns) // 2,
        before_power_w=means_w[0],
        t_after_ns=(windows[-1].t0_ns + windows[-1].t1_ns) // 2,
        after_power_w=means_w[-1],
        sd_w=max(spreads_w),
        error_w=math.sqrt(sum(error**2 for error in errors_w)) / len(windows),
    )


def _spread_w(energy: CumulativeEnergy, span: Span) -> tuple[float, float]:
    """Standard deviation between tenths of a window, as of one sample and as of the window's mean."""
    edges_ns = np.linspace(span.t0_ns, span.t1_ns, IDLE_BLOCKS + 1).astype(np.int64)
    blocks_w = np.diff(energy.at(edges_ns)) / (np.diff(edges_ns) * 1e-9)
    blocks_w -= np.polyval(np.polyfit(np.arange(IDLE_BLOCKS), blocks_w, 1), np.arange(IDLE_BLOCKS))  # drift is no noise
    block_sd_w = float(np.sqrt((blocks_w**2).sum() / (IDLE_BLOCKS - 2)))
    samples_per_block = max(1.0, energy.count(span.t0_ns, span.t1_ns) / IDLE_BLOCKS)
    return block_sd_w * math.sqrt(samples_per_block), block_sd_w / math.sqrt(IDLE_BLOCKS)


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


def trial_energy(trace: Trace, span: Span, n: int, baseline: IdleBaseline) -> TrialEnergy:
    """The energy of each of the `n` inferences in `span`: that of the window, divided by `n`.

    Raises: InputError if `n` is not positive, TraceInvalid if the window holds fewer than two samples.
    """
    if n < 1:
        raise InputError(f"a trial holds 1 inference or more, got {n!r}: raise n")
    energy = trace.energy_j(span)
    duration_s, idle_w = span.duration_s, baseline.mean_power_w(span.t0_ns, span.t1_ns)
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
    """All trials of one run: medians per inference, with 95 % bootstrap intervals [low, high].

    `net_sd_j` combines the standard error over trials with the uncertainty of the idle line; `resolved` says
    whether the net energy is at least three of those above zero.
    """

    net_j: float
    net_ci95_j: tuple[float, float]
    gross_j: float
    gross_ci95_j: tuple[float, float]
    latency_s: float
    active_power_w: float
    idle_power_w: float
    n: int
    trials: int
    net_sd_j: float
    resolved: bool


def run_energy(trials: Sequence[TrialEnergy], baseline: IdleBaseline, seed: int = 0) -> RunEnergy:
    """The energy of one run from its trials, all with the same number `n` of inferences.

    Raises: InputError if there is no trial, or their numbers of inferences differ.
    """
    lengths = sorted({trial.n for trial in trials})
    if len(lengths) != 1:
        raise InputError(f"the trials of a run hold the same number of inferences, got {lengths!r}: keep whole trials")
    net_j = [trial.net_j for trial in trials]
    gross_j = [trial.gross_j for trial in trials]
    latency_s = stats.median([trial.latency_s for trial in trials])
    spread_j = stats.standard_deviation(net_j) / math.sqrt(len(trials))
    net_sd_j = math.hypot(spread_j, baseline.error_w * latency_s)
    return RunEnergy(
        net_j=stats.median(net_j),
        net_ci95_j=stats.bootstrap_interval(net_j, seed=seed),
        gross_j=stats.median(gross_j),
        gross_ci95_j=stats.bootstrap_interval(gross_j, seed=seed),
        latency_s=latency_s,
        active_power_w=stats.median([trial.active_power_w for trial in trials]),
        idle_power_w=stats.median([trial.idle_power_w for trial in trials]),
        n=lengths[0],
        trials=len(trials),
        net_sd_j=net_sd_j,
        resolved=stats.median(net_j) >= RESOLVED_SIGMA * net_sd_j and stats.median(net_j) > 0.0,
    )

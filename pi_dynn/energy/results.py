"""The energy of one inference, computed from a recording and its trace; the same inputs give the same figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pi_dynn import stats
from pi_dynn.board import invalidating_changes
from pi_dynn.energy.protocol import IDLE_AFTER, IDLE_BEFORE
from pi_dynn.energy.records import EnergyExit, EnergyRecording, EnergyResult, TimedPass
from pi_dynn.errors import TraceInvalid
from pi_dynn.power import (
    IdleBaseline,
    MeterInfo,
    RunEnergy,
    Trace,
    TraceQuality,
    TrialEnergy,
    aliasing_warning,
    check_trace,
    idle_baseline,
    improvement,
    run_energy,
    trial_energy,
)

_SIGMA_95 = 1.96
_OF_SUBJECT = (
    "name",
    "model",
    "parameters",
    "dataset",
    "bundle",
    "precision",
    "engine",
    "threads",
    "batch_size",
    "thresholds",
)


def energy_results(recording: EnergyRecording, trace: Trace) -> list[EnergyResult]:
    """One result per subject; the first of two is the baseline of the second."""
    idle = _Idle.of(recording, trace)
    cases = [_Case(recording, trace, idle, subject, None) for subject in range(len(recording.subjects))]
    results = [_result(recording, trace, idle, case) for case in cases]
    if len(results) == 2:
        results[1] = _improved(results[1], cases[1], cases[0])
    return results


@dataclass(frozen=True)
class _Idle:
    """Idle power, if its windows can be used, and their sampling quality."""

    baseline: IdleBaseline | None
    windows: dict[str, TraceQuality]

    @classmethod
    def of(cls, recording: EnergyRecording, trace: Trace) -> "_Idle":
        spans = [trace.spans[place] for place in recording.idle]
        windows = {span.label: check_trace(trace, span) for span in spans}
        usable = [span for span in spans if windows[span.label].samples >= 2]
        try:
            baseline = idle_baseline(trace, usable[0], usable[1] if len(usable) > 1 else None) if usable else None
        except TraceInvalid:
            baseline = None  # the reasons are in the windows
        return cls(baseline, windows)


class _Case:
    """The trials of one subject at its natural mix, or forced to one exit."""

    def __init__(
        self, recording: EnergyRecording, trace: Trace, idle: _Idle, subject: int, forced_exit: int | None
    ) -> None:
        def mine(passes: Sequence[TimedPass]) -> list[TimedPass]:
            return [one for one in passes if (one.subject, one.forced_exit) == (subject, forced_exit)]

        self.subject = subject
        self.passes = mine(recording.trials)
        self.latency = next(iter(mine(recording.latency)), None)
        self.windows: dict[str, TraceQuality] = {}
        self.trials: list[TrialEnergy] = []
        whole = [one for one in self.passes if one.n == one.planned_n]
        for one in whole or self.passes[:1]:  # an interrupted run shows even a part of a trial
            if one.span is None:
                continue
            span = trace.spans[one.span]
            self.windows[one.label] = check_trace(trace, span)
            try:
                if idle.baseline is not None:
                    self.trials.append(trial_energy(trace, span, one.n, idle.baseline))
            except TraceInvalid:
                continue  # too few samples, which is among the reasons of the window
        self.energy: RunEnergy | None = None
        if self.trials and idle.baseline is not None:
            self.energy = run_energy(self.trials, idle.baseline)

    def mean(self, total: str) -> float:
        """Mean seconds per answer of "forward_s" or "elapsed_s", if possible from the pass without the sampler."""
        timed = [self.latency] if self.latency is not None and self.latency.n else self.passes
        answers = sum(one.n for one in timed)
        return sum(getattr(one, total) for one in timed) / answers if answers else 0.0

    def mix(self) -> TimedPass | None:
        """The pass with the exit counts of the natural mix: the one with the most answers."""
        candidates = [one for one in (*self.passes, self.latency) if one is not None and one.n]
        return max(candidates, key=lambda one: one.n, default=None)


def _result(recording: EnergyRecording, trace: Trace, idle: _Idle, case: _Case) -> EnergyResult:
    subject, info = recording.subjects[case.subject], trace.info
    forced = [_Case(recording, trace, idle, case.subject, k) for k in range(len(subject.blocks))]
    if not any(one.passes for one in forced):
        forced = []
    windows = {**idle.windows, **case.windows, **{label: q for one in forced for label, q in one.windows.items()}}
    mix = case.mix()
    exit_sum = _exit_sum(mix, forced, idle, info) if mix is not None else None
    reasons = _reasons(recording, windows, case)
    if exit_sum is not None and case.energy is not None and not _agree(case.energy, exit_sum, idle, info):
        reasons.append(
            f"the natural mix takes {case.energy.net_j:.4g} J but its exits, weighted, {exit_sum[0]:.4g} J: "
            "the board changed between trials, cool it and measure again"
        )
    elapsed_s = case.mean("elapsed_s")
    aliasing = aliasing_warning(info, elapsed_s) if elapsed_s > 0 else None
    return EnergyResult(
        **{name: getattr(subject, name) for name in _OF_SUBJECT},
        **{name: getattr(info, name) for name in ("measured", "label", "scope", "shunt_ohm", "gain")},
        **_energy_figures(case, idle),
        **_sampling_figures(trace, windows),
        acc1=sum(mix.exit_right) / mix.n if mix is not None and mix.exit_right is not None else None,
        latency_s=case.mean("forward_s"),
        elapsed_s=elapsed_s,
        images_per_s=1.0 / elapsed_s if elapsed_s > 0 else 0.0,
        valid=not reasons,
        invalid_reasons=reasons,
        exits=_exits(subject.blocks, mix, case.latency, forced),
        exit_sum_j=exit_sum[0] if exit_sum is not None else None,
        exit_sum_ci95_j=exit_sum[1:] if exit_sum is not None else None,
        improvement=None,
        improvement_ci95=None,
        meter=info.name,
        rails=list(info.rails),
        board=recording.board,
        board_after=recording.board_after,
        notes=[*recording.notes, *info.notes, *([aliasing] if aliasing else [])],
    )


def _energy_figures(case: _Case, idle: _Idle) -> dict[str, Any]:
    """The figures in joules and watts; None for unknown ones."""
    energy, baseline = case.energy, idle.baseline
    return {
        "net_j": energy and energy.net_j,
        "net_ci95_j": energy and energy.net_ci95_j,
        "net_sd_j": energy and energy.net_sd_j,
        "resolved": energy is not None and energy.resolved,
        "gross_j": energy and energy.gross_j,
        "gross_ci95_j": energy and energy.gross_ci95_j,
        "idle_power_w": energy.idle_power_w if energy else baseline and baseline.before_power_w,
        "idle_sd_w": baseline and baseline.sd_w,
        "idle_drift_w_per_s": baseline and baseline.drift_w_per_s,
        "active_power_w": energy and energy.active_power_w,
        "n": energy.n if energy else 0,
        "trials": len(case.trials),
        "trial_s": min((trial.duration_s for trial in case.trials), default=None),
    }


def _sampling_figures(trace: Trace, windows: dict[str, TraceQuality]) -> dict[str, Any]:
    """The sampling quality of the whole run; the gap is the largest within its windows."""
    whole = check_trace(trace)
    names = ("sample_rate_hz", "samples", "duplicates", "stale_reads", "retries", "clipped")
    largest_gap_s = max((quality.largest_gap_s for quality in windows.values()), default=0.0)
    return {**{name: getattr(whole, name) for name in names}, "largest_gap_s": largest_gap_s}


def _reasons(recording: EnergyRecording, windows: dict[str, TraceQuality], case: _Case) -> list[str]:
    """Reasons why the figures of a case are invalid; empty if they are valid."""
    labels_of: dict[str, list[str]] = {}
    if recording.interrupted:
        labels_of["interrupted"] = []
    for label, quality in windows.items():
        for reason in quality.invalid_reasons:
            labels_of.setdefault(reason, []).append(label)
    reasons = [f"{labels[0]}: {reason}" if len(labels) == 1 else reason for reason, labels in labels_of.items()]
    whole = sum(one.n == one.planned_n for one in case.passes)
    if whole < recording.planned_trials:
        reasons.append(f"{whole} of {recording.planned_trials} trials were finished")
    for label in (IDLE_BEFORE, IDLE_AFTER):
        if label not in windows:
            reasons.append(f"{label} the trials was not measured")
    if case.energy is None and not reasons:
        reasons.append("no trial could be integrated")
    if recording.board is not None and recording.board_after is not None:
        reasons += invalidating_changes(recording.board, recording.board_after)
    return reasons


def _exits(
    blocks: Sequence[int], mix: TimedPass | None, latency: TimedPass | None, forced: Sequence[_Case]
) -> list[EnergyExit]:
    rows = []
    timed = latency if latency is not None and latency.n else mix
    for k, block in enumerate(blocks):
        count = mix.exit_counts[k] if mix is not None else 0
        timed_count = timed.exit_counts[k] if timed is not None else 0
        own = forced[k] if forced else None
        energy = own.energy if own else None
        latency_s = own.mean("forward_s") or None if own else None
        if timed is not None and timed_count:
            latency_s = timed.exit_forward_s[k] / timed_count
        rows.append(
            EnergyExit(
                exit_index=k,
                block_index=block,
                share=count / mix.n if mix is not None else 0.0,
                accuracy=mix.exit_right[k] / count
                if mix is not None and mix.exit_right is not None and count
                else None,
                latency_s=latency_s,
                net_j=energy.net_j if energy is not None else None,
                net_ci95_j=energy.net_ci95_j if energy is not None else None,
            )
        )
    return rows


def _exit_sum(
    mix: TimedPass, forced: Sequence[_Case], idle: _Idle, info: MeterInfo
) -> tuple[float, float, float] | None:
    """The share-weighted net energy of the forced exits, round by round: (median, low, high)."""
    energies = [one.energy for one in forced if one.energy is not None]
    if not forced or len(energies) < len(forced):
        return None
    shares = [count / mix.n for count in mix.exit_counts]
    rounds = range(min(len(one.trials) for one in forced))
    sums_j = [sum(share * one.trials[r].net_j for share, one in zip(shares, forced, strict=True)) for r in rounds]
    low_j, high_j = stats.bootstrap_interval(sums_j)
    errors_j = [_shared_error_j(energy, idle, info) for energy in energies]
    shared_j = sum(share * error_j for share, error_j in zip(shares, errors_j, strict=True))
    return stats.median(sums_j), low_j - shared_j, high_j + shared_j


def _shared_error_j(energy: RunEnergy, idle: _Idle, info: MeterInfo) -> float:
    """The systematic error of the net energy, common to all trials, which their spread does not show.

    It comes from the idle line, one step of the meter, and the edges of a window, which fall between samples.
    """
    assert idle.baseline is not None  # there is no energy of a run without it
    edges_j = abs(energy.active_power_w - energy.idle_power_w) * info.nominal_period_s / energy.n
    return math.hypot(
        _SIGMA_95 * idle.baseline.error_w * energy.latency_s, info.resolution_w * energy.latency_s, edges_j
    )


def _agree(energy: RunEnergy, exit_sum: Sequence[float], idle: _Idle, info: MeterInfo) -> bool:
    """Whether the intervals of the natural mix and of the weighted sum overlap."""
    shared_j = _shared_error_j(energy, idle, info)
    low_j, high_j = energy.net_ci95_j
    return low_j - shared_j <= exit_sum[2] and exit_sum[1] <= high_j + shared_j


def _improved(result: EnergyResult, case: _Case, base: _Case) -> EnergyResult:
    """The result with its improvement on the baseline, paired by trial for the interval."""
    pairs = list(zip(base.trials, case.trials, strict=False))
    if base.energy is None or case.energy is None or any(one.net_j <= 0 for one, _ in pairs) or base.energy.net_j <= 0:
        return result
    saved = [improvement(one.net_j, other.net_j) for one, other in pairs]
    return replace(
        result,
        improvement=improvement(base.energy.net_j, case.energy.net_j),
        improvement_ci95=stats.bootstrap_interval(saved),
    )

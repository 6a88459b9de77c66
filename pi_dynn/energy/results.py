"""The energy of one inference, computed from a recording and its trace; the same inputs give the same figures."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pi_dynn import stats
from pi_dynn.energy.compare import compared_in_turns
from pi_dynn.energy.records import EnergyExit, EnergyRecording, EnergyResult, TimedPass
from pi_dynn.energy.uncertainty import expanded_j, uncertainty_budget
from pi_dynn.energy.validity import (
    Supply,
    board_reasons,
    idle_reasons,
    power_reasons,
    slowdown_reasons,
    supply_reasons,
    trial_reasons,
    window_reasons,
)
from pi_dynn.errors import TraceInvalid
from pi_dynn.power import (
    IdlePower,
    MeterInfo,
    RunEnergy,
    Span,
    Trace,
    TraceQuality,
    TrialEnergy,
    aliasing_warning,
    check_trace,
    idle_neighbours,
    idle_power,
    run_energy,
    trial_energy,
)
from pi_dynn.power.meter import ESTIMATED

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
    idle = _Idle(recording, trace)
    cases = [_Case(recording, trace, idle, subject, None) for subject in range(len(recording.subjects))]
    results = [_result(recording, trace, idle, case) for case in cases]
    if len(results) == 2:
        base, case = (one.energy for one in cases)
        if base is not None and case is not None:
            trials = [one.trials for one in cases]
            results[1] = compared_in_turns(results[1], results[0], (case, base), (trials[1], trials[0]), trace.info)
    return results


class _Idle:
    """The idle windows that can be used, and the sampling quality of all."""

    def __init__(self, recording: EnergyRecording, trace: Trace) -> None:
        spans = [trace.spans[place] for place in recording.idle]
        self.windows = {span.label: check_trace(trace, span) for span in spans}
        self.usable = [span for span in spans if self.windows[span.label].samples >= 2]
        trials = [trace.spans[one.span] for one in recording.trials if one.span is not None]
        self.neighbours = dict(zip(trials, idle_neighbours(self.usable, trials), strict=True))
        self.power: IdlePower | None = None
        if self.usable:
            self.power = idle_power(trace, self.usable)


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
        self.spans: list[Span] = []
        self.unbracketed: list[str] = []
        whole = [one for one in self.passes if one.n == one.planned_n]
        independent = True
        for one in whole or self.passes[:1]:  # an interrupted run shows even a part of a trial
            if one.span is None:
                continue
            span = trace.spans[one.span]
            neighbours = idle.neighbours[span]
            self.windows[one.label] = check_trace(trace, span)
            around = [window for window in (neighbours.before, neighbours.after) if window is not None]
            if len(around) < 2:
                self.unbracketed.append(one.label)
            independent &= neighbours.own
            try:
                if around:
                    self.trials.append(trial_energy(trace, span, one.n, around))
                    self.spans.append(span)
            except TraceInvalid:
                continue  # too few samples, which is among the reasons of the window
        self.energy = run_energy(self.trials, independent) if self.trials else None

    @property
    def finished(self) -> int:
        """How many trials were finished."""
        return sum(one.n == one.planned_n for one in self.passes)

    def mean(self, total: str) -> float:
        """Mean seconds per answer of "forward_s" or "elapsed_s", if possible from the pass without the sampler."""
        timed = [self.latency] if self.latency is not None and self.latency.n else self.passes
        answers = sum(one.n for one in timed)
        return sum(getattr(one, total) for one in timed) / answers if answers else 0.0

    @property
    def slowdown(self) -> float | None:
        """By which share the median trial was slower per answer than the pass without the sampler."""
        if self.latency is None or not self.latency.n or not self.trials:
            return None
        return stats.median([trial.latency_s for trial in self.trials]) * self.latency.n / self.latency.elapsed_s - 1.0

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
    supply = _supply(recording, trace, idle, case)
    exit_sum = _exit_sum(mix, forced) if mix is not None else None
    reasons = [
        *window_reasons(windows),
        *trial_reasons(recording, case.finished, case.unbracketed),
        *board_reasons(recording, info),
        *supply_reasons(supply, info, recording.board),
    ]
    # What an estimate says of idle power, speed and load is the model's doing, and its interval shows it.
    if case.energy is not None and idle.power is not None and info.label != ESTIMATED:
        reasons += [
            *power_reasons(case.energy, info, recording.board),
            *idle_reasons(idle.power, case.energy),
            *slowdown_reasons(case.slowdown),
        ]
    if case.energy is None and not reasons:
        reasons.append("no trial could be integrated")
    if exit_sum is not None and case.energy is not None and not _agree(case.energy, exit_sum, info):
        reasons.append(
            f"the natural mix takes {case.energy.net_j:.4g} J but its exits, weighted, {exit_sum.net_j:.4g} J: "
            "the board changed between trials, cool it and measure again"
        )
    elapsed_s = case.mean("elapsed_s")
    aliasing = aliasing_warning(info, elapsed_s) if elapsed_s > 0 else None
    return EnergyResult(
        **{name: getattr(subject, name) for name in _OF_SUBJECT},
        **{name: getattr(info, name) for name in ("measured", "label", "scope", "shunt_ohm", "gain")},
        **_energy_figures(case, idle, info, supply),
        **_sampling_figures(trace, windows),
        acc1=None if mix is None else mix.acc1,
        latency_s=case.mean("forward_s"),
        elapsed_s=elapsed_s,
        images_per_s=1.0 / elapsed_s if elapsed_s > 0 else 0.0,
        idle_voltage_v=supply.idle_v,
        active_voltage_v=supply.active_v,
        lowest_voltage_v=supply.lowest_v,
        peak_a=supply.peak_a,
        settling_s=max(recording.settling_s, default=None),
        slowdown=case.slowdown,
        valid=not reasons,
        invalid_reasons=reasons,
        exits=_exits(subject.blocks, mix, case.latency, forced),
        exit_sum_j=exit_sum.net_j if exit_sum is not None else None,
        exit_sum_ci95_j=exit_sum.net_ci95_j if exit_sum is not None else None,
        improvement=None,
        improvement_ci95=None,
        in_turns=None,
        meter=info.name,
        rails=list(info.rails),
        board=recording.board,
        board_after=recording.board_after,
        notes=[*recording.notes, *info.notes, *([aliasing] if aliasing else [])],
    )


def _supply(recording: EnergyRecording, trace: Trace, idle: _Idle, case: _Case) -> Supply:
    """Volts and amperes in the idle windows and trials."""
    volts, amperes = (_Column(trace, column) for column in (trace.voltage_v, trace.current_a))
    peaks = [value for value in (recording.peak_a, trace.largest_current_a) if value is not None]
    return Supply(
        idle_v=volts.mean(idle.usable),
        active_v=volts.mean(case.spans),
        lowest_v=volts.lowest([*idle.usable, *case.spans]),
        idle_a=amperes.mean(idle.usable),
        active_a=amperes.mean(case.spans),
        peak_a=max(peaks, default=None),
    )


class _Column:
    """The known values of one column of a trace, by windows."""

    def __init__(self, trace: Trace, values: NDArray[np.float64]) -> None:
        known = ~np.isnan(values)
        self._t_ns, self._values = trace.t_ns[known], values[known]

    def _inside(self, spans: Sequence[Span]) -> NDArray[np.float64]:
        masks = [(self._t_ns > span.t0_ns) & (self._t_ns < span.t1_ns) for span in spans]
        return self._values[np.logical_or.reduce(masks)] if masks else self._values[:0]

    def mean(self, spans: Sequence[Span]) -> float | None:
        values = self._inside(spans)
        return float(values.mean()) if len(values) else None

    def lowest(self, spans: Sequence[Span]) -> float | None:
        values = self._inside(spans)
        return float(values.min()) if len(values) else None


def _energy_figures(case: _Case, idle: _Idle, info: MeterInfo, supply: Supply) -> dict[str, Any]:
    """The figures in joules and watts; None for unknown ones."""
    energy = case.energy
    budget = []
    if energy is not None and energy.net_ci95_j is not None:
        budget = uncertainty_budget(energy, info, sag_limit_w=supply.sag_limit_w, slowdown=case.slowdown or 0.0)
    complete = bool(budget) and info.accuracy is not None
    return {
        "net_j": energy and energy.net_j,
        "net_ci95_j": energy and energy.net_ci95_j,
        "net_se_j": energy and energy.net_se_j,
        "net_expanded_j": expanded_j(budget, "net_j") if complete else None,
        "resolved": energy is not None and energy.resolved,
        "trials_to_resolve": energy and energy.trials_to_resolve,
        "gross_j": energy and energy.gross_j,
        "gross_ci95_j": energy and energy.gross_ci95_j,
        "gross_expanded_j": expanded_j(budget, "gross_j") if complete else None,
        "uncertainty": budget,
        "idle_power_w": energy.idle_power_w if energy else idle.power and idle.power.mean_w,
        "idle_range_w": idle.power and idle.power.range_w,
        "idle_drift_w_per_s": idle.power and idle.power.drift_w_per_s,
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
            latency_s = timed.exit_forward_s[k] / timed_count or None
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


def _exit_sum(mix: TimedPass, forced: Sequence[_Case]) -> RunEnergy | None:
    """The share-weighted energy of the forced exits, round by round, as that of one run."""
    if not forced or any(not one.trials for one in forced):
        return None
    shares = [count / mix.n for count in mix.exit_counts]
    rounds = [_weighted(trials, shares) for trials in zip(*(one.trials for one in forced), strict=False)]
    return run_energy(rounds, independent=all(one.energy is not None and one.energy.net_ci95_j for one in forced))


def _weighted(trials: Sequence[TrialEnergy], shares: Sequence[float]) -> TrialEnergy:
    """One trial of the mix, put together from a trial of each exit."""

    def total(name: str) -> float:
        return float(sum(share * getattr(trial, name) for share, trial in zip(shares, trials, strict=True)))

    latency_s, gross_j, net_j = total("latency_s"), total("gross_j"), total("net_j")
    return TrialEnergy(
        n=1,
        duration_s=latency_s,
        latency_s=latency_s,
        gross_j=gross_j,
        net_j=net_j,
        active_power_w=gross_j / latency_s,
        idle_power_w=(gross_j - net_j) / latency_s,
    )


def _agree(energy: RunEnergy, exit_sum: RunEnergy, info: MeterInfo) -> bool:
    """Whether the natural mix and the weighted sum differ by no more than their uncertainties; True without intervals.

    The meter's scale is left out, because both have it.
    """
    if energy.net_ci95_j is None or exit_sum.net_ci95_j is None:
        return True
    unscaled = replace(info, accuracy=None)
    both_j = [
        expanded_j(uncertainty_budget(one, unscaled, sag_limit_w=0.0, slowdown=0.0), "net_j")
        for one in (energy, replace(exit_sum, n=energy.n))
    ]
    return abs(energy.net_j - exit_sum.net_j) <= sum(both_j)

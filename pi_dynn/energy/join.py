"""Joins a run with the power trace that another instrument recorded meanwhile, by the edges of the work.

The two have clocks of their own. The run knows when the work began and ended; the trace shows it as steps of power.
First the shift is found at which power differs most between trials and idle windows, then every edge on its own, and a
straight line through the edges gives shift and rate of the clocks.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pi_dynn.energy.protocol import Measurement
from pi_dynn.errors import InputError
from pi_dynn.power import Span, Trace

_STEP_S = 0.01  # of the search for the shift
_NEAR_S = 0.5  # an edge is looked for this near to where it should be
_CONTRAST = 0.5  # of the difference between work and idle that must be there at the best shift, against the spread
MAX_EDGE_ERROR_S = 0.05


class Joined(NamedTuple):
    """The run with the instrument's trace on the run's clock, and how well edges fit: standard deviation in seconds."""

    measurement: Measurement
    edge_error_s: float
    clock_ppm: float


def join_trace(run: Measurement, recorded: Trace) -> Joined:
    """The run with `recorded` in place of its own trace.

    Raises: InputError if the trace is shorter than the run, shows no work, or its edges do not fit.
    """
    spans = run.trace.spans
    trials = [spans[one.span] for one in run.recording.trials if one.span is not None]
    idle = [spans[place] for place in run.recording.idle]
    if not trials or not idle:
        raise InputError("the run has no trials between idle windows: record it again")
    shift_s = _best_shift_s(recorded, trials, idle)
    edges_s = np.array([edge * 1e-9 for trial in trials for edge in (trial.t0_ns, trial.t1_ns)])
    seen_s = np.array([_edge_s(recorded, edge_s + shift_s, rising=i % 2 == 0) for i, edge_s in enumerate(edges_s)])
    rate, start_s = np.polyfit(edges_s, seen_s, 1) if len(trials) > 1 else (1.0, float(np.mean(seen_s - edges_s)))
    residuals_s = seen_s - (rate * edges_s + start_s)
    error_s = float(np.std(residuals_s))
    if error_s > MAX_EDGE_ERROR_S:
        raise InputError(
            f"the edges of the work are {error_s * 1e3:.0f} ms apart in run and trace (limit "
            f"{MAX_EDGE_ERROR_S * 1e3:.0f} ms): is it the trace of this run?"
        )
    t_ns = np.round((recorded.t_ns * 1e-9 - start_s) / rate * 1e9).astype(np.int64)
    period_s = recorded.info.nominal_period_s / rate
    trace = replace(recorded, info=replace(recorded.info, nominal_period_s=period_s), t_ns=t_ns, spans=spans)
    trace = replace(trace, throttle=run.trace.throttle)
    note = (
        f"joined by {len(edges_s)} edges of the work, which fit to {error_s * 1e3:.1f} ms; "
        f"the clocks differ by {(rate - 1) * 1e6:+.0f} ppm"
    )
    recording = replace(run.recording, notes=[*run.recording.notes, note])
    return Joined(Measurement(recording, trace), error_s, float((rate - 1) * 1e6))


def _best_shift_s(recorded: Trace, trials: list[Span], idle: list[Span]) -> float:
    """What to add to a time of the run to have that of the trace: where work and idle differ most."""
    assert recorded.power_w is not None
    first_s = min(span.t0_ns for span in (*trials, *idle)) * 1e-9
    last_s = max(span.t1_ns for span in (*trials, *idle)) * 1e-9
    end_s = float(recorded.t_ns[-1]) * 1e-9
    room = int((end_s - (last_s - first_s)) / _STEP_S)
    if room < 0:
        raise InputError(
            f"the trace lasts {end_s:.1f} s and the run {last_s - first_s:.1f} s: record from before it until after it"
        )
    edges_ns = np.arange(int(end_s / _STEP_S) + 1) * round(_STEP_S * 1e9)
    energy_j = np.concatenate(([0.0], np.cumsum(np.diff(recorded.cumulative.at(edges_ns.astype(np.int64))))))
    shifts = np.arange(room + 1)

    def mean_w(windows: list[Span]) -> NDArray[np.float64]:
        joules, steps = np.zeros(len(shifts)), 0
        for window in windows:
            from_step = round((window.t0_ns * 1e-9 - first_s) / _STEP_S)
            until_step = max(from_step + 1, round((window.t1_ns * 1e-9 - first_s) / _STEP_S))
            ends = np.minimum(shifts + until_step, len(energy_j) - 1)
            joules += energy_j[ends] - energy_j[np.minimum(shifts + from_step, len(energy_j) - 1)]
            steps += until_step - from_step
        return joules / (steps * _STEP_S)

    contrast_w = mean_w(trials) - mean_w(idle)
    best = int(np.argmax(contrast_w))
    if not contrast_w[best] > _CONTRAST * float(np.std(recorded.power_w)):
        raise InputError("the trace shows no steps of power where the run worked: is it the trace of this run?")
    return float(shifts[best]) * _STEP_S - first_s


def _edge_s(recorded: Trace, near_s: float, rising: bool) -> float:
    """When power crosses the middle between its levels before and after, near a time of the trace's clock."""
    assert recorded.power_w is not None
    t_s = recorded.t_ns * 1e-9
    inside = (t_s > near_s - _NEAR_S) & (t_s < near_s + _NEAR_S)
    times_s, power_w = t_s[inside], recorded.power_w[inside]
    if len(times_s) < 4:
        return near_s
    # The best split into two levels: where the sum of squares around their means is least.
    count = np.arange(1, len(power_w))
    left, right = np.cumsum(power_w)[:-1], power_w.sum() - np.cumsum(power_w)[:-1]
    score = left**2 / count + right**2 / (len(power_w) - count)
    sign = 1.0 if rising else -1.0
    score = np.where(sign * (right / (len(power_w) - count) - left / count) > 0, score, -np.inf)
    split = int(np.argmax(score))
    return float(times_s[split] + times_s[split + 1]) / 2

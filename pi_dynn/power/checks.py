"""The quality of a power trace: figures, and the reasons why it is not valid for an energy figure."""

import math
from dataclasses import dataclass, replace

import numpy as np

from pi_dynn.power.meter import UNUSABLE, MeterInfo, SampleFlags
from pi_dynn.power.trace import Span, ThrottleMark, Trace
from pi_dynn.records import Record

MAX_GAP_PERIODS = 3.0
MAX_RETRY_SHARE = 0.01
LIVE_THROTTLE_BITS = 0xF
"""Bits 0-3 of the firmware word are now, 16-19 since boot (raspberrypi.com, vcgencmd get_throttled)."""


@dataclass(frozen=True)
class TraceQuality(Record):
    """The sampling quality of a window of a trace; `valid` if `invalid_reasons` is empty.

    `samples` counts the usable ones. `sample_rate_hz` is the achieved rate, not the nominal one.
    `largest_gap_s` includes the gaps at both edges. `duplicates` are samples equal to the one before
    (counted, never dropped); `stale_reads` counts polls without a new sample, over the whole trace.
    """

    samples: int
    sample_rate_hz: float
    largest_gap_s: float
    duplicates: int
    stale_reads: int
    retries: int
    clipped: int
    resets: int
    invalid_reasons: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether there is no reason against the trace."""
        return not self.invalid_reasons


def check_trace(
    trace: Trace,
    window: Span | None = None,
    *,
    max_gap_periods: float = MAX_GAP_PERIODS,
    max_retry_share: float = MAX_RETRY_SHARE,
) -> TraceQuality:
    """The quality of the samples in `window`, or of the whole trace.

    An early end of the sampling and bus retries make every window of the trace invalid; clipped samples, resets
    and throttling only the window they fall in.
    """
    if window is None:
        edges = trace.t_ns[[0, -1]] if len(trace.t_ns) else np.zeros(2, dtype=np.int64)
        window = Span(int(edges[0]), int(edges[1]), "all")
    inside = (trace.t_ns >= window.t0_ns) & (trace.t_ns <= window.t1_ns)
    flags = trace.flags[inside]
    near_ns = round(max_gap_periods * trace.info.nominal_period_s * 1e9)  # a chip reset is known only so exactly
    near = (trace.t_ns >= window.t0_ns - near_ns) & (trace.t_ns <= window.t1_ns + near_ns)
    usable = inside & ((trace.flags & int(UNUSABLE)) == 0)
    samples = int(usable.sum())
    gap_s = _largest_gap_s(trace, window)
    span_s = float(np.ptp(trace.t_ns[usable]) * 1e-9) if samples > 1 else 0.0
    values = trace.values[usable]
    quality = TraceQuality(
        samples=samples,
        sample_rate_hz=(samples - 1) / span_s if span_s > 0 else 0.0,
        largest_gap_s=gap_s,
        duplicates=int((np.diff(values) == 0).sum()) if samples > 1 else 0,
        stale_reads=trace.stale_reads,
        retries=trace.retries,
        clipped=int(((flags & SampleFlags.CLIPPED) != 0).sum()),
        resets=int(((trace.flags[near] & SampleFlags.CHIP_RESET) != 0).sum()),
        invalid_reasons=(),
    )
    reasons = _reasons(trace, window, quality, int(((flags & SampleFlags.REVERSED) != 0).sum()))
    limit_s = max_gap_periods * trace.info.nominal_period_s
    if samples >= 2 and gap_s > limit_s * (1 + 1e-9):  # exactly three periods are still good
        reasons.append(f"largest gap between samples {gap_s:.4g} s (limit {limit_s:.4g} s): close other programs")
    if trace.retries > max_retry_share * max(1, len(trace.t_ns)):
        reasons.append(
            f"{trace.retries} bus retries for {len(trace.t_ns)} samples (limit {max_retry_share:.0%}): "
            "shorten or re-seat the I2C leads"
        )
    return replace(quality, invalid_reasons=tuple(reasons))


def _reasons(trace: Trace, window: Span, quality: TraceQuality, reversed_samples: int) -> list[str]:
    reasons = []
    if trace.error is not None:
        reasons.append(f"sampling ended early: {trace.error}")
    if quality.samples < 2:
        reasons.append(f"{quality.samples} usable samples in {window.duration_s:.4g} s (2 are needed): measure longer")
    if quality.clipped:
        reasons.append(f"{quality.clipped} clipped samples: use a smaller shunt or a wider gain")
    if quality.resets:
        reasons.append(f"the meter chip reset {quality.resets} times (brown-out): check its 3.3 V supply")
    if reversed_samples:
        reasons.append(f"{reversed_samples} samples of reversed current: swap VIN+ and VIN-, remove back-feeds")
    reasons.extend(throttle_reasons(trace.throttle, window))
    return reasons


def _largest_gap_s(trace: Trace, window: Span) -> float:
    """The longest time in the window without a usable sample, including the gaps at the edges."""
    t_ns = trace.t_ns[(trace.flags & int(UNUSABLE)) == 0]
    if len(t_ns) == 0:
        return window.duration_s
    first = max(0, np.searchsorted(t_ns, window.t0_ns, side="right") - 1)  # the sample before the window bridges it
    last = min(len(t_ns), np.searchsorted(t_ns, window.t1_ns, side="left") + 1)
    near = t_ns[first:last]
    edges = [max(0, int(near[0]) - window.t0_ns), max(0, window.t1_ns - int(near[-1]))] if len(near) else []
    gaps = [*edges, *np.diff(near).tolist()]
    return max(gaps) * 1e-9 if gaps else window.duration_s


def throttle_reasons(marks: tuple[ThrottleMark, ...], window: Span) -> list[str]:
    """Reasons why the firmware's throttle bits make this window invalid; empty if they do not.

    Live bits count while they are set. A sticky bit counts if it was not yet set at the start of the window; if it
    was, it hides a second event, so the live bits are polled as well.
    """
    before = [mark for mark in marks if mark.t_ns <= window.t0_ns]
    inside = [mark for mark in marks if window.t0_ns < mark.t_ns <= window.t1_ns]
    window_marks = before[-1:] + inside
    reasons = []
    live = [mark.bits & LIVE_THROTTLE_BITS for mark in window_marks]
    if any(live):
        reasons.append(f"throttled during the run (live bits {max(live):#x}): cool the board, check its 5 V supply")
    if window_marks and any((mark.bits & ~window_marks[0].bits) >> 16 for mark in window_marks[1:]):
        reasons.append(
            f"throttle state changed during the run ({window_marks[0].bits:#x} to {window_marks[-1].bits:#x})"
        )
    return reasons


def aliasing_warning(info: MeterInfo, inference_period_s: float, tolerance: float = 0.02) -> str | None:
    """A warning if point samples could alias with the inferences; None if they cannot.

    Samples that average over most of their period cover every phase of the load; point samples whose period
    divides that of the inferences (or is a multiple of it) measure the same phase again and again.
    """
    if info.kind == "counter" or info.random_times or info.window_s > 0.5 * info.nominal_period_s:
        return None
    ratio = inference_period_s / info.nominal_period_s
    ratio = max(ratio, 1.0 / ratio)
    if math.isclose(ratio, round(ratio), rel_tol=tolerance):
        return (
            f"inferences of {inference_period_s:.4g} s and samples every {info.nominal_period_s:.4g} s are in step: "
            "turn the meter's averaging on, or change its period"
        )
    return None

"""A doubtful trace is invalid, with the reason in words."""

import re

import numpy as np
import pytest

from pi_dynn.power import MeterInfo, SampleFlags, Span, ThrottleMark, Trace, aliasing_warning, check_trace
from pi_dynn.power.checks import throttle_reasons

PERIOD_NS = 5_000_000
INFO = MeterInfo("test", "board input", (), 0.0, PERIOD_NS * 1e-9, False, "SIMULATED", window_s=0.004)


def trace_of(count=1000, *, without=(), flagged=None, power_w=None, **fields):
    keep = np.array([index for index in range(count) if index not in set(without)], dtype=np.int64)
    flags = np.zeros(count, dtype=np.int64)
    for index, flag in (flagged or {}).items():
        flags[index] = int(flag)
    values = np.linspace(3.0, 4.0, count) if power_w is None else np.asarray(power_w, dtype=float)
    unknown = np.full(len(keep), np.nan)
    return Trace(INFO, keep * PERIOD_NS, values[keep], None, unknown, unknown, flags[keep], **fields)


def at(index):
    return index * PERIOD_NS


def test_a_good_trace_and_its_figures():
    quality = check_trace(trace_of(stale_reads=700, retries=3))
    assert quality.valid
    assert quality.invalid_reasons == ()
    assert quality.samples == 1000
    assert quality.sample_rate_hz == pytest.approx(200.0)
    assert quality.largest_gap_s == pytest.approx(0.005)
    assert (quality.duplicates, quality.stale_reads, quality.retries, quality.clipped) == (0, 700, 3, 0)


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        (trace_of(0), "0 usable samples"),
        (trace_of(1), "1 usable samples"),
        (trace_of(without=range(500, 503)), "largest gap between samples 0.02 s .limit 0.015 s."),
        (trace_of(flagged={7: SampleFlags.CLIPPED}), "1 clipped samples"),
        (trace_of(flagged={7: SampleFlags.CHIP_RESET, 9: SampleFlags.CHIP_RESET}), "chip reset 2 times"),
        (trace_of(flagged={7: SampleFlags.REVERSED}), "reversed current"),
        (trace_of(error="nothing answers"), "ended early: nothing answers"),
        (trace_of(retries=11), "11 bus retries for 1000 samples"),
        (trace_of(throttle=(ThrottleMark(0, 0), ThrottleMark(at(500), 0x40004))), "throttled during the run"),
        (trace_of(throttle=(ThrottleMark(0, 0), ThrottleMark(at(500), 0x40000))), "state changed.*0x0 to 0x40000"),
    ],
)
def test_each_fault_is_a_reason(trace, words):
    quality = check_trace(trace)
    assert not quality.valid
    assert len(quality.invalid_reasons) >= 1
    assert any(re.search(words, reason) for reason in quality.invalid_reasons), quality.invalid_reasons


def test_two_missing_samples_are_still_three_periods():
    assert check_trace(trace_of(without=(500, 501))).valid


def test_a_window_is_judged_by_what_is_in_it():
    trace = trace_of(flagged={100: SampleFlags.CLIPPED}, without=range(600, 620))
    assert check_trace(trace, Span(at(200), at(500), "run")).valid
    assert check_trace(trace, Span(at(50), at(150), "run")).clipped == 1
    assert not check_trace(trace, Span(at(500), at(700), "run")).valid


def test_a_reset_at_the_edge_counts_for_its_time_is_only_about_known():
    trace = trace_of(flagged={199: SampleFlags.CHIP_RESET})
    assert check_trace(trace, Span(at(200), at(500), "run")).resets == 1
    assert check_trace(trace, Span(at(100), at(197), "run")).resets == 1
    assert check_trace(trace, Span(at(203), at(500), "run")).resets == 0


def test_gaps_at_the_edges_count():
    trace = trace_of()
    assert check_trace(trace, Span(at(-2), at(500), "run")).valid
    early, late = Span(at(-4), at(500), "run"), Span(at(500), at(1004), "run")
    assert "largest gap" in check_trace(trace, early).invalid_reasons[0]
    assert "largest gap" in check_trace(trace, late).invalid_reasons[0]
    # a hole that the window starts in is seen whole, though its first sample lies before the window
    hole = trace_of(without=range(300, 320))
    assert check_trace(hole, Span(at(310), at(500), "run")).largest_gap_s == pytest.approx(21 * 0.005)
    assert check_trace(hole, Span(at(301), at(319), "run")).samples == 0
    assert not check_trace(hole, Span(at(301), at(319), "run")).valid


def test_repeated_values_are_counted_and_kept():
    quality = check_trace(trace_of(power_w=np.repeat([3.0, 4.0], 500)))
    assert (quality.samples, quality.duplicates) == (1000, 998)
    assert quality.valid


def test_a_sticky_bit_set_before_does_not_hide_a_new_event():
    window = Span(at(100), at(900), "run")
    old = ThrottleMark(0, 0x50000)
    assert throttle_reasons((old,), window) == []
    again = throttle_reasons((old, ThrottleMark(at(500), 0x50005), ThrottleMark(at(501), 0x50000)), window)
    assert again == ["throttled during the run (live bits 0x5): cool the board, check its 5 V supply"]
    assert throttle_reasons((ThrottleMark(0, 0x50005),), window) != []  # throttled from before until after
    assert throttle_reasons((old, ThrottleMark(at(950), 0x50005)), window) == []  # after the window


def test_point_samples_in_step_with_the_inferences():
    point = MeterInfo("hwmon", "board input", (), 0.0, 0.01, True, "MEASURED")
    assert "are in step" in aliasing_warning(point, 0.0201)
    assert "are in step" in aliasing_warning(point, 0.005)
    assert aliasing_warning(point, 0.0237) is None
    assert aliasing_warning(INFO, 0.02) is None  # it averages
    counter = MeterInfo("rapl", "CPU package", (), 0.0, 0.02, True, "MEASURED", kind="counter")
    assert aliasing_warning(counter, 0.02) is None


def test_two_samples_are_enough():
    assert not [reason for reason in check_trace(trace_of(2)).invalid_reasons if "usable samples" in reason]

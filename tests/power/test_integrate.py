"""Joules against closed forms, and what must hold for any samples."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pi_dynn.errors import TraceInvalid
from pi_dynn.power import MeterInfo, SampleFlags, Span, Trace
from pi_dynn.power.fake import Constant, Ramp, Square, Sum, waveform_energy_j
from pi_dynn.power.integrate import counter_difference_j

INFO = MeterInfo("test", "board input", (), 0.0, 1e-3, False, "SIMULATED")
COUNTER = MeterInfo("test", "CPU package", (), 0.0, 1e-3, False, "SIMULATED", kind="counter")


def power_trace(t_ns, power_w, flags=None):
    t_ns = np.asarray(t_ns, dtype=np.int64)
    unknown = np.full(len(t_ns), np.nan)
    flags = np.zeros(len(t_ns), dtype=np.int64) if flags is None else np.asarray(flags)
    return Trace(INFO, t_ns, np.asarray(power_w, dtype=float), None, unknown, unknown, flags)


def counter_trace(t_ns, energy_j_values):
    t_ns = np.asarray(t_ns, dtype=np.int64)
    unknown = np.full(len(t_ns), np.nan)
    values = np.asarray(energy_j_values, dtype=float)
    return Trace(COUNTER, t_ns, None, values, unknown, unknown, np.zeros(len(t_ns), dtype=np.int64))


# Oracles: the whole way through driver and chip, against the closed form of the load

CYCLE_S = 4.792e-3
ORACLES = {
    "constant": (Constant(3.27), 2e-3),
    "ramp": (Ramp(2.0, 0.4), 2e-3),
    "drifting idle": (Ramp(3.0, 0.005), 2e-3),
    "square, unlocked": (Square(3.0, 5.0, 0.0203, 0.7), 3e-3),
    "square, locked to the samples": (Square(3.0, 5.0, 4 * CYCLE_S, 0.7), 5e-3),
    "fast square": (Square(2.0, 6.0, 0.00031, 0.4), 3e-3),
    "square on a drifting idle": (Sum((Ramp(3.0, 0.005), Square(0.0, 2.0, 0.02, 0.7))), 3e-3),
}


@pytest.mark.parametrize("name", ORACLES)
def test_energy_of_a_known_load(open_chip, sample, name):
    load, tolerance = ORACLES[name]
    trace = sample(open_chip(load, chip={"noise_v": 100e-6, "seed": 1}), 10.5)
    t0_ns, t1_ns = 300_000_000, 10_200_000_000
    expected_j = waveform_energy_j(load, t0_ns * 1e-9, t1_ns * 1e-9)
    assert trace.cumulative.between(t0_ns, t1_ns) == pytest.approx(expected_j, rel=tolerance)


def test_a_straight_line_is_exact():
    t_ns = np.array([0, 3, 10, 11, 30]) * 10**7
    trace = power_trace(t_ns, 1.0 + 2.0 * t_ns * 1e-9)
    for t0_s, t1_s in ((0.0, 0.3), (0.05, 0.11), (0.02, 0.299)):
        expected_j = (t1_s - t0_s) + (t1_s**2 - t0_s**2)
        assert trace.cumulative.between(round(t0_s * 1e9), round(t1_s * 1e9)) == pytest.approx(expected_j, rel=1e-12)


def test_equal_neighbours_are_all_kept():
    # 90 % at 3 W, 10 % at 5 W: with repeated values dropped, the trapezoid would find 4.0 W
    power_w = np.where(np.arange(10_001) % 100 < 90, 3.0, 5.0)
    trace = power_trace(np.arange(10_001) * 10**6, power_w)
    assert trace.mean_power_w(Span(0, 10_000 * 10**6, "all")) == pytest.approx(3.2, abs=1e-3)


def test_unusable_samples_are_left_out():
    power_w = [3.0, 3.0, 99.0, 3.0, 3.0]
    for flag in (SampleFlags.CLIPPED, SampleFlags.CHIP_RESET, SampleFlags.REVERSED):
        trace = power_trace(np.arange(5) * 10**9, power_w, [0, 0, int(flag), 0, 0])
        assert trace.cumulative.between(0, 4 * 10**9) == pytest.approx(12.0)
    overflowed = power_trace(np.arange(5) * 10**9, power_w, [0, 0, int(SampleFlags.OVERFLOW), 0, 0])
    assert overflowed.cumulative.between(0, 4 * 10**9) > 12.0


@pytest.mark.parametrize("inside", [0, 1])
def test_a_window_without_two_samples_is_an_error_not_zero(inside):
    trace = power_trace(np.arange(10) * 10**9, np.ones(10))
    with pytest.raises(TraceInvalid, match=f"^{inside} usable power samples"):
        trace.cumulative.between(5 * 10**9 + (0 if inside else 1), 6 * 10**9 - 1)


def test_too_few_samples_at_all_and_empty_windows():
    with pytest.raises(TraceInvalid, match="1 usable power samples of 1"):
        power_trace([0], [1.0]).cumulative.between(0, 10)
    with pytest.raises(TraceInvalid, match="end after it starts"):
        power_trace([0, 1], [1.0, 1.0]).cumulative.between(5, 5)


def test_outside_the_samples_power_stays_as_it_was():
    energy = power_trace([10**9, 2 * 10**9], [2.0, 4.0]).cumulative
    assert energy.at(0) == pytest.approx(-2.0)
    assert energy.at(3 * 10**9) == pytest.approx(3.0 + 4.0)
    counted = counter_trace([10**9, 2 * 10**9, 3 * 10**9], [5.0, 7.0, 11.0]).cumulative
    assert counted.at(0) == pytest.approx(-2.0)
    assert counted.at(4 * 10**9) == pytest.approx(6.0 + 4.0)


# What must hold for any samples

times = st.lists(st.integers(1, 10**8), min_size=3, max_size=40).map(lambda steps: np.cumsum([0, *steps]))


@st.composite
def traces(draw):
    t_ns = draw(times)
    values = draw(st.lists(st.floats(0.0, 100.0), min_size=len(t_ns), max_size=len(t_ns)))
    if draw(st.booleans()):
        return power_trace(t_ns, values)
    return counter_trace(t_ns, np.cumsum(values))


@given(traces(), st.data())
def test_windows_add_up(trace, data):
    last_ns = int(trace.t_ns[-1])
    cuts = sorted(data.draw(st.lists(st.integers(-(10**7), last_ns + 10**7), min_size=3, max_size=6, unique=True)))
    at = trace.cumulative.at(cuts)
    assert np.diff(at).sum() == pytest.approx(at[-1] - at[0], rel=1e-9, abs=1e-9)
    whole = trace.cumulative
    if whole.count(cuts[0], cuts[1]) >= 2 and whole.count(cuts[1], cuts[-1]) >= 2:
        parts = trace.cumulative.between(cuts[0], cuts[1]) + trace.cumulative.between(cuts[1], cuts[-1])
        assert parts == pytest.approx(trace.cumulative.between(cuts[0], cuts[-1]), rel=1e-9, abs=1e-9)


@given(times, st.data(), st.floats(0.01, 100.0))
def test_scaling_power_scales_energy(t_ns, data, factor):
    power_w = np.array(data.draw(st.lists(st.floats(0.0, 100.0), min_size=len(t_ns), max_size=len(t_ns))))
    last_ns = int(t_ns[-1])
    scaled_j = power_trace(t_ns, factor * power_w).cumulative.between(0, last_ns)
    assert scaled_j == pytest.approx(
        factor * power_trace(t_ns, power_w).cumulative.between(0, last_ns), rel=1e-9, abs=1e-12
    )


@given(times, st.data(), st.integers(-(10**15), 10**15))
def test_shifting_time_changes_nothing(t_ns, data, shift_ns):
    power_w = data.draw(st.lists(st.floats(0.0, 100.0), min_size=len(t_ns), max_size=len(t_ns)))
    last_ns = int(t_ns[-1])
    still_j = power_trace(t_ns, power_w).cumulative.between(0, last_ns)
    assert power_trace(t_ns + shift_ns, power_w).cumulative.between(shift_ns, last_ns + shift_ns) == pytest.approx(
        still_j
    )


@given(times, st.data())
def test_energy_lies_between_the_extremes(t_ns, data):
    power_w = data.draw(st.lists(st.floats(0.0, 100.0), min_size=len(t_ns), max_size=len(t_ns)))
    assume(len(t_ns) >= 2)
    found_w = power_trace(t_ns, power_w).mean_power_w(Span(0, int(t_ns[-1]), "all"))
    assert min(power_w) - 1e-9 <= found_w <= max(power_w) + 1e-9


# Counters


@given(st.floats(1.0, 1e6), st.floats(0.0, 1.0), st.floats(0.0, 0.999))
def test_a_counter_is_unwrapped(range_j, start, step):
    before_j, true_j = start * range_j, step * range_j
    after_j = before_j + true_j
    after_j = after_j - range_j if after_j > range_j else after_j
    found_j = counter_difference_j(before_j, after_j, range_j)
    assert found_j == pytest.approx(true_j, rel=1e-9, abs=1e-6 * range_j)
    assert found_j >= 0.0


def test_counters_integrate_by_difference():
    trace = counter_trace(np.arange(5) * 10**9, [100.0, 101.0, 104.0, 104.0, 110.0])
    assert trace.cumulative.between(0, 4 * 10**9) == pytest.approx(10.0)
    assert trace.cumulative.between(500_000_000, 3_500_000_000) == pytest.approx(0.5 + 3.0 + 0.0 + 3.0)


@pytest.mark.parametrize(("before_j", "after_j", "range_j"), [(5.0, 11.0, 10.0), (-1.0, 2.0, 10.0), (1.0, 2.0, 0.0)])
def test_readings_a_counter_cannot_give(before_j, after_j, range_j):
    with pytest.raises(TraceInvalid, match="range"):
        counter_difference_j(before_j, after_j, range_j)


def test_a_counter_that_falls_was_not_unwrapped():
    with pytest.raises(TraceInvalid, match="backwards"):
        counter_trace([0, 10**9, 2 * 10**9], [5.0, 6.0, 1.0]).cumulative.between(0, 2 * 10**9)

"""A run on a board, and the trace of an instrument with a clock of its own."""

from dataclasses import replace

import numpy as np
import pytest

from pi_dynn.energy.join import join_trace
from pi_dynn.energy.protocol import EnergyParts, EnergySettings, measure_call
from pi_dynn.energy.results import energy_results
from pi_dynn.errors import InputError
from pi_dynn.power import MeterInfo, Trace
from pi_dynn.power.external import External
from pi_dynn.power.fake import SimulatedClock, Switched, waveform_energy_j
from pi_dynn.power.meter import MEASURED
from tests.energy.simulated import IDLE_W, SimulatedBoard

ACTIVE_W, CALL_S = 3.26, 0.02
TRUE_J = CALL_S * (ACTIVE_W - IDLE_W)


@pytest.fixture(scope="module")
def run_and_load():
    """A run without samples, and the load that it caused."""
    clock, load = SimulatedClock(), Switched(IDLE_W)

    class Work:
        def __enter__(self):
            load.set_power(clock.now_ns() * 1e-9, ACTIVE_W)

        def __exit__(self, *_):
            load.set_power(clock.now_ns() * 1e-9, IDLE_W)

    parts = EnergyParts(External(), clock, SimulatedBoard(), Work)
    settings = EnergySettings(trials=4, trial_s=3.0, idle_s=3.0)
    return measure_call(parts, lambda: clock.sleep(CALL_S), "call", settings), load, clock.now_ns() * 1e-9


def recorded(load, end_s, *, early_s=4.0, late_s=3.0, ppm=0.0, period_s=1e-3, noise_w=0.05):
    """The load as an instrument sees it that was started before and stopped after the run."""
    count = round((end_s + early_s + late_s) / period_s)
    edges_s = (np.arange(count + 1) * period_s) / (1 + ppm * 1e-6) - early_s
    joules = np.array([waveform_energy_j(load, 0.0, max(0.0, t_s)) for t_s in edges_s])
    power_w = np.diff(joules) / period_s
    power_w[edges_s[:-1] < 0] = IDLE_W
    power_w += np.random.default_rng(0).normal(0.0, noise_w, count)
    info = MeterInfo("PPK2", "board input", (), 0.0, period_s, measured=True, label=MEASURED, window_s=period_s)
    unknown = np.full(count, np.nan)
    t_ns = np.round((np.arange(count) + 0.5) * period_s * 1e9).astype(np.int64)
    return Trace(info, t_ns, power_w, None, unknown, unknown, np.zeros(count, dtype=np.int64))


@pytest.mark.parametrize(("early_s", "ppm"), [(4.0, 0.0), (0.5, 0.0), (11.3, 200.0), (4.0, -500.0)])
def test_the_energy_is_that_of_the_load_whatever_the_clocks(run_and_load, early_s, ppm):
    run, load, end_s = run_and_load
    joined = join_trace(run, recorded(load, end_s, early_s=early_s, ppm=ppm))
    assert joined.edge_error_s < 2e-3
    assert joined.clock_ppm == pytest.approx(ppm, abs=60)
    assert f"the clocks differ by {joined.clock_ppm:+.0f} ppm" in joined.measurement.recording.notes[-1]
    (result,) = energy_results(*joined.measurement)
    assert result.valid, result.invalid_reasons
    assert result.net_j == pytest.approx(TRUE_J, rel=3e-3)
    assert (result.label, result.meter, result.measured) == ("MEASURED", "PPK2", True)
    assert result.net_ci95_j[0] < result.net_j < result.net_ci95_j[1]
    assert any("joined by 8 edges" in note for note in result.notes)


def test_a_coarse_trace_of_a_usb_meter_is_enough(run_and_load):
    run, load, end_s = run_and_load
    (result,) = energy_results(*join_trace(run, recorded(load, end_s, period_s=0.04)).measurement)
    assert result.net_j == pytest.approx(TRUE_J, rel=0.02)


def test_the_trace_of_something_else_is_refused(run_and_load):
    run, load, end_s = run_and_load
    with pytest.raises(InputError, match="record from before it until after it"):
        join_trace(run, recorded(load, end_s / 2, early_s=0.0, late_s=0.0))
    trace = recorded(load, end_s)
    flat = np.random.default_rng(1).normal(2.0, 0.1, len(trace.t_ns))
    with pytest.raises(InputError, match="is it the trace of this run"):
        join_trace(run, replace(trace, power_w=flat))
    square = IDLE_W + (trace.t_ns // 1_700_000_000 % 2) * 1.0  # steps, but other ones
    with pytest.raises(InputError, match="is it the trace of this run"):
        join_trace(run, replace(trace, power_w=square))


def test_a_run_without_trials_is_refused(run_and_load):
    run, load, end_s = run_and_load
    empty = run._replace(recording=replace(run.recording, trials=[]))
    with pytest.raises(InputError, match="no trials"):
        join_trace(empty, recorded(load, end_s))

"""From power to joules per inference."""

import numpy as np
import pytest

from pi_dynn.errors import InputError, TraceInvalid
from pi_dynn.power import (
    Span,
    TrialEnergy,
    idle_baseline,
    improvement,
    run_energy,
    trial_energy,
)
from pi_dynn.power.energy import IdleBaseline, RunEnergy
from pi_dynn.power.fake import Constant, During, Ramp, Sum

SECOND_NS = 10**9


def test_improvement_is_the_share_saved():
    assert improvement(4.0, 3.0) == pytest.approx(0.25)
    assert improvement(4.0, 5.0) == pytest.approx(-0.25)
    with pytest.raises(InputError, match="above 0 J"):
        improvement(0.0, 1.0)


@pytest.fixture
def drifting_run(open_chip, sample):
    """2 s of idle, 5 s of work at 1.5 W more, 2 s of idle, on an idle power that rises 20 mW a second."""
    load = Sum((Ramp(2.0, 0.02), During(Constant(1.5), 2.5, 7.5)))
    trace = sample(open_chip(load, chip={"noise_v": 100e-6}), 10.0)
    idle_before = Span(round(0.4e9), round(2.4e9), "idle")
    idle_after = Span(round(7.7e9), round(9.7e9), "idle")
    return trace, idle_before, Span(round(2.5e9), round(7.5e9), "run"), idle_after


def test_the_idle_line_follows_the_drift(drifting_run):
    trace, before, run, after = drifting_run
    line = idle_baseline(trace, before, after)
    assert line.drift_w_per_s == pytest.approx(0.02, rel=0.02)
    assert line.mean_power_w(run.t0_ns, run.t1_ns) == pytest.approx(2.0 + 0.02 * 5.0, abs=2e-3)
    assert 0.0 < line.error_w < line.sd_w < 0.05


def test_net_energy_is_what_the_work_added(drifting_run):
    trace, before, run, after = drifting_run
    trial = trial_energy(trace, run, 100, idle_baseline(trace, before, after))
    assert trial.latency_s == pytest.approx(0.05)
    assert trial.net_j == pytest.approx(1.5 * 0.05, rel=3e-3)
    assert trial.gross_j == pytest.approx((2.1 + 1.5) * 0.05, rel=2e-3)
    assert trial.net_j == pytest.approx(trial.latency_s * (trial.active_power_w - trial.idle_power_w))
    one_sided = trial_energy(trace, run, 100, idle_baseline(trace, before))
    assert one_sided.net_j == pytest.approx((1.5 + 0.02 * 3.6) * 0.05, rel=5e-3)  # the error the second window removes


def test_windows_without_samples_and_trials_without_inferences(drifting_run):
    trace, before, run, after = drifting_run
    with pytest.raises(TraceInvalid, match="usable power samples"):
        idle_baseline(trace, Span(0, 1000, "idle"), after)
    with pytest.raises(InputError, match="1 inference or more"):
        trial_energy(trace, run, 0, idle_baseline(trace, before))


def trial(net_j, n=500, idle_w=2.0, latency_s=0.02):
    gross_j = net_j + idle_w * latency_s
    return TrialEnergy(n, n * latency_s, latency_s, gross_j, net_j, gross_j / latency_s, idle_w)


def flat(error_w=0.0):
    return IdleBaseline(0, 2.0, 10 * SECOND_NS, 2.0, 0.01, error_w)


def test_a_run_is_the_median_of_its_trials_with_an_interval():
    run = run_energy([trial(net_j) for net_j in (0.031, 0.030, 0.032, 0.030, 0.090)], flat())
    assert run.net_j == pytest.approx(0.031)
    assert run.gross_j == pytest.approx(0.031 + 0.04)
    assert run.net_ci95_j[0] == pytest.approx(0.030)
    assert run.net_ci95_j[0] <= run.net_j <= run.net_ci95_j[1]
    assert (run.n, run.trials) == (500, 5)
    assert RunEnergy.from_dict(run.to_dict()) == run


def test_the_same_trials_give_the_same_interval():
    trials = [trial(net_j) for net_j in np.random.default_rng(0).normal(0.03, 0.001, 7)]
    assert run_energy(trials, flat()) == run_energy(trials, flat())
    width_j = np.subtract(*run_energy(trials, flat()).net_ci95_j[::-1])
    assert 0.0 < width_j < 0.004


def test_three_sigma_above_the_idle_line_or_not_resolved():
    trials = [trial(net_j) for net_j in (0.0100, 0.0101, 0.0099, 0.0100, 0.0100)]
    assert run_energy(trials, flat()).resolved
    assert not run_energy(trials, flat(error_w=0.2)).resolved  # 0.2 W x 20 ms is 4 mJ
    assert not run_energy([trial(net_j) for net_j in (0.01, -0.02, 0.03, 0.0, 0.02)], flat()).resolved
    assert not run_energy([trial(0.0)], flat()).resolved


def test_runs_that_are_none():
    with pytest.raises(InputError, match="same number"):
        run_energy([], flat())
    with pytest.raises(InputError, match=r"\[400, 500\]"):
        run_energy([trial(0.03, n=500), trial(0.03, n=400)], flat())

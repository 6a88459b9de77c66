"""From power to joules per inference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_dynn.errors import InputError, TraceInvalid
from pi_dynn.power import (
    Span,
    TrialEnergy,
    idle_neighbours,
    idle_power,
    improvement,
    run_energy,
    trial_energy,
)
from pi_dynn.power.energy import RunEnergy
from pi_dynn.power.fake import Constant, During, Ramp, Sum
from pi_dynn.stats import student_t95


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


def test_idle_power_is_described_by_all_its_windows(drifting_run):
    trace, before, _, after = drifting_run
    idle = idle_power(trace, [before, after])
    assert idle.drift_w_per_s == pytest.approx(0.02, rel=0.02)
    assert idle.mean_w == pytest.approx(2.0 + 0.02 * 5.05, abs=2e-3)
    assert idle.range_w == pytest.approx(0.02 * 7.3, rel=0.02)
    assert idle_power(trace, [before]).drift_w_per_s == 0.0


def test_net_energy_is_what_the_work_added(drifting_run):
    trace, before, run, after = drifting_run
    trial = trial_energy(trace, run, 100, [before, after])
    assert trial.latency_s == pytest.approx(0.05)
    assert trial.net_j == pytest.approx(1.5 * 0.05, rel=3e-3)
    assert trial.gross_j == pytest.approx((2.1 + 1.5) * 0.05, rel=2e-3)
    assert trial.net_j == pytest.approx(trial.latency_s * (trial.active_power_w - trial.idle_power_w))
    one_sided = trial_energy(trace, run, 100, [before])
    assert one_sided.net_j == pytest.approx((1.5 + 0.02 * 3.6) * 0.05, rel=5e-3)  # the error the second window removes


def test_windows_without_samples_and_trials_without_inferences(drifting_run):
    trace, before, run, after = drifting_run
    with pytest.raises(TraceInvalid, match="usable power samples"):
        trial_energy(trace, run, 100, [Span(0, 1000, "idle"), after])
    with pytest.raises(InputError, match="1 inference or more"):
        trial_energy(trace, run, 0, [before])
    with pytest.raises(InputError, match="measure an idle window"):
        trial_energy(trace, run, 100, [])


def spans(*edges_s):
    return [Span(round(1e9 * t0), round(1e9 * t1), "") for t0, t1 in edges_s]


def test_a_window_between_two_trials_gives_each_its_nearest_part():
    idle, trials = spans((0, 10), (20, 30), (40, 50)), spans((10, 20), (30, 40))
    first, second = idle_neighbours(idle, trials)
    assert (first.before, first.after) == (idle[0], *spans((20, 24)))
    assert (second.before, second.after) == (*spans((26, 30)), idle[2])
    assert first.own and second.own


def test_trials_between_the_same_two_windows_share_them():
    idle, trials = spans((0, 10), (30, 40)), spans((10, 20), (20, 30))
    neighbours = idle_neighbours(idle, trials)
    assert [(one.before, one.after, one.own) for one in neighbours] == [(*idle, False)] * 2


def test_a_trial_after_the_last_window_has_none_after_it():
    (only,) = idle_neighbours(spans((0, 10)), spans((10, 20)))
    assert (only.after, only.own) == (None, True)


def trial(net_j, n=500, idle_w=2.0, latency_s=0.02):
    gross_j = net_j + idle_w * latency_s
    return TrialEnergy(n, n * latency_s, latency_s, gross_j, net_j, gross_j / latency_s, idle_w)


def test_a_run_is_the_mean_of_its_trials_with_an_interval():
    run = run_energy([trial(net_j) for net_j in (0.031, 0.030, 0.032, 0.030, 0.032)])
    assert run.net_j == pytest.approx(0.031)
    assert run.gross_j == pytest.approx(0.031 + 0.04)
    half_j = 2.776 * 0.001 / 5**0.5
    assert run.net_ci95_j == (pytest.approx(0.031 - half_j), pytest.approx(0.031 + half_j))
    assert run.gross_ci95_j == (pytest.approx(0.071 - half_j), pytest.approx(0.071 + half_j))
    assert run.net_se_j == pytest.approx(0.001 / 5**0.5)
    assert (run.n, run.trials) == (500, 5)
    assert RunEnergy.from_dict(run.to_dict()) == run


@pytest.mark.parametrize(("count", "independent"), [(1, True), (2, True), (5, False)])
def test_without_three_independent_trials_there_is_no_interval(count, independent):
    run = run_energy([trial(0.03 + 0.001 * number) for number in range(count)], independent)
    assert run.net_ci95_j is None
    assert not run.resolved
    assert run.trials_to_resolve is None


def test_an_interval_above_zero_or_not_resolved():
    assert run_energy([trial(net_j) for net_j in (0.0100, 0.0101, 0.0099, 0.0100, 0.0100)]).resolved
    lost = run_energy([trial(net_j) for net_j in (0.01, -0.02, 0.03, 0.0, 0.02)])
    assert not lost.resolved
    assert lost.trials_to_resolve > 5
    nothing = run_energy([trial(0.0)] * 3)
    assert (nothing.resolved, nothing.trials_to_resolve) == (False, None)


@given(
    means=st.floats(0.01, 1.0),
    deviations=st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=12).filter(lambda values: np.std(values) > 1e-3),
)
def test_the_number_of_trials_that_would_resolve_is_the_smallest(means, deviations):
    run = run_energy([trial(means + deviation) for deviation in deviations])
    count = run.trials_to_resolve
    if run.net_j <= 0:
        assert count is None
        return
    spread_j = run.net_se_j * run.trials**0.5
    assert student_t95(count - 1) * spread_j / count**0.5 < run.net_j
    fewer = count - max(1, count // 11)  # it looks at steps of a tenth
    assert count == 3 or student_t95(fewer - 1) * spread_j / fewer**0.5 >= run.net_j


def test_runs_that_are_none():
    with pytest.raises(InputError, match="same number"):
        run_energy([])
    with pytest.raises(InputError, match=r"\[400, 500\]"):
        run_energy([trial(0.03, n=500), trial(0.03, n=400)])

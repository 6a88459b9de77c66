"""The promise of risk control, kept in simulation, and refusals that say what is missing."""

import re

import numpy as np
import pytest

from benchmarks.risk_simulation import PromiseSimulation
from pi_dynn.calibrate.bounds import binomial_tail
from pi_dynn.calibrate.outcomes import NEVER, ExitOutcomes, operating_point
from pi_dynn.calibrate.risk import (
    RiskSettings,
    control_risk,
    count_losses,
    last_safe,
    split_control_risk,
)
from pi_dynn.errors import CalibrationError
from tests.calibrate.synthetic import synthetic_outcomes

SPLITS = 100


@pytest.fixture(scope="module")
def population():
    return synthetic_outcomes(8000, 6)


@pytest.fixture(scope="module")
def simulation(population):
    return PromiseSimulation(population, images=5000, splits=SPLITS)


@pytest.mark.parametrize("risk", ["harm", "gap"])
@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("epsilon", [0.005, 0.01, 0.02])
def test_the_promise_is_broken_in_at_most_delta_of_the_splits(simulation, epsilon, corrected, risk):
    result = simulation.keep(RiskSettings(epsilon, 0.1, risk, corrected))
    # One in a thousand simulations of a rule that breaks exactly a delta of its promises would have more.
    most = int(np.searchsorted(binomial_tail(np.arange(SPLITS + 1), SPLITS, 0.1), 0.999))
    assert result.broken <= most
    assert result.vacuous == 0
    assert result.mean_cost < 96  # of 100 at full depth


def test_without_a_test_the_promise_is_broken_far_more_often(simulation):
    assert simulation.keep_untested(RiskSettings(0.01)).broken > 0.3 * SPLITS


def test_the_bound_is_within_epsilon_and_the_point_is_what_it_says(population):
    for risk in ("harm", "gap"):
        point, promise = control_risk(population, RiskSettings(0.01, risk=risk))
        assert 0.0 < promise.bound <= 0.01 and promise.risk == risk
        assert point == operating_point(population, point.thresholds)
        assert population.full_depth_accuracy - point.accuracy < 0.01


def test_a_wider_promise_costs_less(population):
    costs = [control_risk(population, RiskSettings(epsilon))[0].mean_cost for epsilon in (0.005, 0.01, 0.02, 0.05)]
    assert costs == sorted(costs, reverse=True) and costs[0] > costs[-1]


def test_the_first_step_that_fails_ends_the_path():
    harms = np.array([0, 0, 90, 0])
    assert last_safe(harms, np.zeros(4), 1000, RiskSettings(0.01)) == 1
    assert last_safe(harms[3:], np.zeros(1), 1000, RiskSettings(0.01)) == 0
    assert last_safe(harms[2:], np.zeros(2), 1000, RiskSettings(0.01)) == -1


def test_losses_by_hand():
    outcomes = ExitOutcomes(np.array([[1, 1, 1, 0], [1, 1, 1, 1]]), np.array([[1, 0, 1, 0], [1, 1, 0, 0]]), [1, 2])
    harms, helps = count_losses(outcomes, [[NEVER], [0.5], [0.0]])
    assert harms.sum(1).tolist() == [0, 1, 1] and helps.sum(1).tolist() == [0, 1, 1]


def test_half_of_the_images_find_the_path_and_half_test_it(population):
    scores = population.scores.copy()
    scores[0] = 1.0 - 0.02 * (1.0 - scores[0])  # the first exit is overconfident, so that no common threshold suits it
    overconfident = ExitOutcomes(scores, population.right, population.costs)
    point, promise = split_control_risk(overconfident, RiskSettings(0.02))
    assert 0.015 < promise.bound <= 0.02 and len(set(point.thresholds)) > 1
    assert point.mean_cost < control_risk(overconfident, RiskSettings(0.02))[0].mean_cost


def test_views_of_one_photograph_promise_nothing(population):
    views = population.group_of // 8
    copies = ExitOutcomes(population.scores, population.right, population.costs, views)
    for control in (control_risk, split_control_risk):
        with pytest.raises(CalibrationError, match="8000 views of 1000 photographs are not independent"):
            control(copies, RiskSettings(0.02))


def test_too_few_images_are_refused_with_the_number_it_takes():
    with pytest.raises(CalibrationError) as caught:
        control_risk(synthetic_outcomes(250, 6), RiskSettings(0.005))
    assert str(caught.value).startswith("250 images are too few to promise at most 0.5 points lost with probability 90")
    assert "it takes 460 even if none is harmed" in str(caught.value) and "\n" not in str(caught.value)


def test_the_number_it_takes_is_enough():
    few = synthetic_outcomes(470, 2)
    few.right[0, few.scores[0] > np.quantile(few.scores[0], 0.97)] = False  # some are harmed at every threshold
    with pytest.raises(CalibrationError, match=r"470 images are too few .* harm \d+ of 470 images") as caught:
        control_risk(few, RiskSettings(0.03, 0.0001))
    needed = int(re.search(r"about (\d+) images", str(caught.value)).group(1))
    often = np.tile(np.arange(470), -(-needed // 470))
    many = ExitOutcomes(few.scores[:, often], few.right[:, often], few.costs)
    assert control_risk(many, RiskSettings(0.03, 0.0001))[0].exit_rates[-1] < 1.0


def test_what_no_number_of_images_can_show():
    outcomes = ExitOutcomes(np.full((2, 2000), 0.9), np.array([[0], [1]]) * np.ones((2, 2000)), [1, 2])
    with pytest.raises(CalibrationError, match="no number of images would show less"):
        control_risk(outcomes, RiskSettings(0.01))
    stays = ExitOutcomes(np.zeros((2, 2000)), np.ones((2, 2000)), [1, 2])
    with pytest.raises(CalibrationError, match="no threshold of the path lets an image leave"):
        control_risk(stays, RiskSettings(0.01))


def test_settings_that_mean_nothing():
    for settings, message in (
        ({"epsilon": 0.0}, "epsilon must lie between 0 and 1"),
        ({"epsilon": 0.01, "delta": 1.0}, "delta must lie"),
        ({"epsilon": float("nan")}, "epsilon must lie"),
        ({"epsilon": 0.01, "risk": "luck"}, "no risk 'luck'"),
    ):
        with pytest.raises(CalibrationError, match=message):
            RiskSettings(**settings)


@pytest.mark.parametrize("risk", ["harm", "gap"])
def test_a_promise_that_no_number_of_images_can_show_is_refused(risk):
    with pytest.raises(CalibrationError, match="cannot promise .* no number of images would show so little"):
        control_risk(synthetic_outcomes(250, 6), RiskSettings(1e-9, risk=risk))

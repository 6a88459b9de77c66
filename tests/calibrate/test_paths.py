"""Totals along paths of thresholds equal those of their steps, and shifts correct overconfident exits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_dynn.calibrate.outcomes import NEVER, ExitOutcomes, operating_point
from pi_dynn.calibrate.paths import best_at_prices, calibration_shifts, path_totals, shifted_path
from tests.calibrate.synthetic import synthetic_outcomes


@given(st.integers(0, 10_000), st.lists(st.one_of(st.floats(-3, 3), st.just(np.inf)), min_size=3, max_size=3))
@settings(max_examples=20)
def test_totals_are_those_of_each_step(seed, shifts):
    outcomes = synthetic_outcomes(60, 4, seed)
    path = shifted_path(shifts)
    accuracy, cost = path_totals(outcomes, path)
    for step in (0, 1, 300, 700, 1100, len(path) - 2, len(path) - 1):
        point = operating_point(outcomes, path[step])
        assert (accuracy[step], cost[step]) == pytest.approx((point.accuracy, point.mean_cost))
    assert (np.diff(cost) >= -1e-9).all()


def test_without_shifts_the_path_is_common_and_an_infinite_shift_disables():
    path = shifted_path([0.0, 0.0, np.inf])
    assert (path[:, 0] == path[:, 1]).all() and (path[:, 2] == NEVER).all()
    assert path[0, 0] == 0.0 and path[-1, 0] == NEVER and (np.diff(path, axis=0) >= 0.0).all()


def test_dearer_cost_takes_cheaper_thresholds():
    outcomes = synthetic_outcomes(500)
    thresholds = best_at_prices(outcomes, shifted_path(np.zeros(4)), [1e-3, 0.1, 3.0])
    costs = [operating_point(outcomes, limits).mean_cost for limits in thresholds]
    assert costs == sorted(costs, reverse=True) and costs[-1] == outcomes.costs[0]


def test_an_overconfident_exit_is_shifted_up():
    outcomes = synthetic_outcomes(2000)
    scores = outcomes.scores.copy()
    scores[1] = 1.0 / (1.0 + np.exp(-(np.log(scores[1] / (1.0 - scores[1])) + 2.0)))
    calibrated = calibration_shifts(outcomes)
    overconfident = calibration_shifts(ExitOutcomes(scores, outcomes.right, outcomes.costs))
    others = [0, 2, 3]
    assert 1.0 < (overconfident - calibrated)[1] - (overconfident - calibrated)[others].mean() < 2.5


def test_shifts_of_copies_are_those_of_the_photographs():
    outcomes = synthetic_outcomes(200)
    eight = np.repeat(np.arange(200), 8)
    copies = ExitOutcomes(outcomes.scores[:, eight], outcomes.right[:, eight], outcomes.costs, eight)
    assert calibration_shifts(copies) == pytest.approx(calibration_shifts(outcomes), abs=0.01)


def test_scores_that_do_not_predict_harm_are_not_shifted():
    outcomes = synthetic_outcomes(300)
    blind = ExitOutcomes(1.0 - outcomes.scores, outcomes.right, outcomes.costs)
    assert (calibration_shifts(blind) == 0.0).all()

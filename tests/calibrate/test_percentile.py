"""The percentile rules, and the published inversion of one of them."""

import numpy as np
import pytest

from pi_dynn.calibrate.outcomes import NEVER, ExitOutcomes
from pi_dynn.calibrate.percentile import best_ratio, inverted_thresholds, percentile_points, percentile_thresholds
from tests.calibrate.synthetic import synthetic_outcomes


def test_the_surest_share_of_those_still_there_leaves():
    scores = np.stack([np.linspace(0, 0.99, 100), np.linspace(0.99, 0, 100), np.ones(100)])
    outcomes = ExitOutcomes(scores, np.zeros((3, 100)), [1, 2, 3])
    point = percentile_points(outcomes, [0.6])[0]
    assert point.exit_rates == [0.6, 0.24, 0.16]
    assert point.thresholds[0] == (scores[0, 39] + scores[0, 40]) / 2


def test_everybody_leaves_an_exit_that_is_good_enough():
    outcomes = ExitOutcomes(np.full((3, 10), 0.2), np.ones((3, 10)), [1, 2, 3])
    assert percentile_thresholds(outcomes, 0.9) == [0.0, NEVER]  # and the exit nobody reaches is closed


def test_the_published_index():
    # 5,000 images and a desired accuracy of 0.8 take the entropy at place 1001 from below.
    entropies = np.arange(5000.0)[::-1]
    assert inverted_thresholds([entropies], [np.zeros(5000)], 0.8) == [pytest.approx(1001.0)]
    assert inverted_thresholds([entropies], [np.ones(5000)], 0.8) == [pytest.approx(0.0)]


def test_the_inversion_lets_the_unsure_go_and_costs_accuracy():
    outcomes = synthetic_outcomes(4000)
    right = outcomes.right.copy()
    right[1:] = True  # only the first exit errs
    rightly = ExitOutcomes(outcomes.scores, right, outcomes.costs)
    inverted = ExitOutcomes(1.0 - outcomes.scores, right, outcomes.costs)
    surest, unsure = percentile_points(rightly, [0.7])[0], percentile_points(inverted, [0.7], inverted=True)[0]
    assert surest.exit_rates[0] == pytest.approx(unsure.exit_rates[0], abs=1e-3)
    assert surest.accuracy > unsure.accuracy + 0.1


def test_best_ratio():
    points = percentile_points(synthetic_outcomes(1000))
    best = best_ratio(points)
    assert all(best.accuracy / best.mean_cost >= point.accuracy / point.mean_cost for point in points)
    assert len(points) == 10 and points[0].settings == {"desired": 0.5}

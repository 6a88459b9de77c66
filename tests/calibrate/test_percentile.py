"""Thresholds at percentiles of the score, for a desired accuracy."""

import numpy as np

from pi_dynn.calibrate.outcomes import NEVER, ExitOutcomes
from pi_dynn.calibrate.percentile import best_ratio, percentile_points, percentile_thresholds
from tests.calibrate.synthetic import synthetic_outcomes


def test_the_surest_share_of_those_still_there_leaves():
    scores = np.stack([np.linspace(0, 0.99, 100), np.linspace(0.99, 0, 100), np.ones(100)])
    outcomes = ExitOutcomes(scores, np.zeros((3, 100)), [1, 2, 3])
    point = percentile_points(outcomes, [0.6])[0]
    assert point.exit_rates == [0.6, 0.24, 0.16]
    assert point.thresholds[0] == (scores[0, 39] + scores[0, 40]) / 2


def test_all_images_leave_an_exit_that_is_good_enough():
    outcomes = ExitOutcomes(np.full((3, 10), 0.2), np.ones((3, 10)), [1, 2, 3])
    assert percentile_thresholds(outcomes, 0.9) == [0.0, NEVER]  # and an exit that no image reaches is disabled


def test_best_ratio():
    points = percentile_points(synthetic_outcomes(1000))
    best = best_ratio(points)
    assert all(best.accuracy / best.mean_cost >= point.accuracy / point.mean_cost for point in points)
    assert len(points) == 10 and points[0].settings == {"desired": 0.5}

"""Thresholds as percentiles of the score at each exit, as BranchyNet and Dynamic-Network-Inference choose them.

Source: kunglab/branchynet, `find_thresholds`; shounaknaik/Dynamic-Network-Inference, `code.py`.
Shape letters: K exits including the last answer, N samples.
"""

from collections.abc import Sequence

import numpy as np

from pi_dynn.calibrate.outcomes import ExitOutcomes, operating_point, threshold_for
from pi_dynn.calibrate.records import OperatingPoint

DESIRED = tuple(np.arange(0.50, 0.951, 0.05).round(2).tolist())


def percentile_thresholds(outcomes: ExitOutcomes, desired: float) -> list[float]:
    """One threshold per early exit for a desired accuracy in 0..1.

    Everybody leaves at an exit that is that accurate by itself; elsewhere the surest `desired` share does.
    Each exit sees only those who have not left before it; one that nobody reaches is closed.
    """
    there = np.ones(outcomes.images, dtype=bool)
    thresholds = []
    for scores, right in zip(outcomes.scores[:-1], outcomes.right[:-1], strict=True):
        thresholds.append(_threshold(scores[there], right[there], desired))
        there &= scores < thresholds[-1]
    return thresholds


def _threshold(scores: np.ndarray, right: np.ndarray, desired: float) -> float:
    leaving = int(desired * len(scores))
    if leaving > 0 and right.mean() > desired:
        return 0.0
    return threshold_for(scores, leaving)


def percentile_points(outcomes: ExitOutcomes, grid: Sequence[float] = DESIRED) -> list[OperatingPoint]:
    """One operating point for each desired accuracy."""
    return [
        operating_point(outcomes, percentile_thresholds(outcomes, desired), desired=float(desired)) for desired in grid
    ]


def best_ratio(points: Sequence[OperatingPoint]) -> OperatingPoint:
    """The point with the greatest accuracy per cost, which is the published choice."""
    return max(points, key=lambda point: point.accuracy / point.mean_cost)

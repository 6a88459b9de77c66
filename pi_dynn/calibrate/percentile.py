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


def inverted_thresholds(entropies: np.ndarray, right: np.ndarray, desired: float) -> list[float]:
    """The published thresholds on the entropies (K - 1, N) of each exit, sign and all.

    The published program lets an image leave where its entropy is *greater* than the threshold, looks at every
    exit by itself, and a slip of precedence counts its index from the wrong end. For use as a score that must
    be reached, the threshold is the next greater number.
    """
    thresholds = []
    for entropy, hits in zip(entropies, right, strict=True):
        if hits.mean() > desired:
            cutoff = 0.0
        else:
            cutoff = np.sort(entropy)[int(1 - desired * len(entropy))]
        thresholds.append(float(np.nextafter(cutoff, np.inf)))
    return thresholds


def percentile_points(
    outcomes: ExitOutcomes, grid: Sequence[float] = DESIRED, inverted: bool = False
) -> list[OperatingPoint]:
    """One operating point for each desired accuracy; `inverted` takes the scores for entropies in nats."""
    points = []
    for desired in grid:
        if inverted:
            limits = inverted_thresholds(outcomes.scores[:-1], outcomes.right[:-1], desired)
        else:
            limits = percentile_thresholds(outcomes, desired)
        points.append(operating_point(outcomes, limits, desired=float(desired)))
    return points


def best_ratio(points: Sequence[OperatingPoint]) -> OperatingPoint:
    """The point with the greatest accuracy per cost, which is the published choice."""
    return max(points, key=lambda point: point.accuracy / point.mean_cost)

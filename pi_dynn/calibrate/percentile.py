"""Thresholds that let a share of the images leave at each exit: percentiles of the score there.

Sources: kunglab/branchynet, `find_thresholds`, and shounaknaik/Dynamic-Network-Inference, `code.py`, for a desired
accuracy; Huang et al., Multi-Scale Dense Networks (2018), section 5, and kalviny/MSDNet-PyTorch,
`adaptive_inference.py`, for shares that are geometric.
Shape letters: K exits including the last answer, N samples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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


def _threshold(scores: NDArray[np.float64], right: NDArray[np.bool_], desired: float) -> float:
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


PUBLISHED_RATIOS = tuple((np.arange(1, 40) / 20).tolist())


def exit_shares(ratio: float, exits: int) -> NDArray[np.float64]:
    """Shares (K,) of images, the k-th proportional to ratio ** k."""
    shares: NDArray[np.float64] = np.power(ratio, np.arange(1, exits + 1))
    shares /= shares.sum()
    return shares


def msdnet_thresholds(outcomes: ExitOutcomes, ratio: float) -> list[float]:
    """Thresholds that let the surest of those still there leave until each exit has its share."""
    there = np.ones(outcomes.images, dtype=bool)
    thresholds = []
    shares = exit_shares(ratio, len(outcomes.costs))
    for scores, share in zip(outcomes.scores[:-1], shares[:-1], strict=True):
        left = scores[there]
        leaving = min(int(round(share * outcomes.images)), len(left))
        thresholds.append(threshold_for(left, leaving))
        there &= scores < thresholds[-1]
    return thresholds


def msdnet_points(outcomes: ExitOutcomes, ratios: Sequence[float] = PUBLISHED_RATIOS) -> list[OperatingPoint]:
    """One operating point for each ratio."""
    return [operating_point(outcomes, msdnet_thresholds(outcomes, ratio), ratio=float(ratio)) for ratio in ratios]

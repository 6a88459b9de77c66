"""Thresholds at percentiles of the score, so that a given share of the images leaves at each exit.

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

    All images leave at an exit that is that accurate by itself; at others the share `desired` with the highest
    scores. Each exit counts only images that have not left before; one that no image reaches is disabled.
    """
    remaining = np.ones(outcomes.images, dtype=bool)
    thresholds = []
    for scores, right in zip(outcomes.scores[:-1], outcomes.right[:-1], strict=True):
        thresholds.append(_threshold(scores[remaining], right[remaining], desired))
        remaining &= scores < thresholds[-1]
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
    """Thresholds at which the images with the highest scores leave each exit until it has its share."""
    remaining = np.ones(outcomes.images, dtype=bool)
    thresholds = []
    shares = exit_shares(ratio, len(outcomes.costs))
    for scores, share in zip(outcomes.scores[:-1], shares[:-1], strict=True):
        reaching = scores[remaining]
        leaving = min(int(round(share * outcomes.images)), len(reaching))
        thresholds.append(threshold_for(reaching, leaving))
        remaining &= scores < thresholds[-1]
    return thresholds


def msdnet_points(outcomes: ExitOutcomes, ratios: Sequence[float] = PUBLISHED_RATIOS) -> list[OperatingPoint]:
    """One operating point for each ratio."""
    return [operating_point(outcomes, msdnet_thresholds(outcomes, ratio), ratio=float(ratio)) for ratio in ratios]

"""Budgeted-batch thresholds: the share that leaves at each exit is geometric.

Source: Huang et al., Multi-Scale Dense Networks (2018), section 5; kalviny/MSDNet-PyTorch, `adaptive_inference.py`.
Shape letters: K exits including the last answer.
"""

from collections.abc import Sequence

import numpy as np

from pi_dynn.calibrate.outcomes import ExitOutcomes, operating_point, threshold_for
from pi_dynn.calibrate.records import OperatingPoint

PUBLISHED_RATIOS = tuple((np.arange(1, 40) / 20).tolist())


def exit_shares(ratio: float, exits: int) -> np.ndarray:
    """Shares (K,) of images, the k-th proportional to ratio ** k."""
    shares = np.power(ratio, np.arange(1, exits + 1))
    return shares / shares.sum()


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

"""The choice of which trained exits to keep, and of their common threshold.

Shape letters: K exits including the last answer, N samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pi_dynn.calibrate.outcomes import leave_at
from pi_dynn.errors import CalibrationError


@dataclass(frozen=True)
class ExitChoice:
    """Exits to keep (indices into the K - 1 early ones), their common threshold, and the resulting figures."""

    exits: list[int]
    threshold: float
    accuracy: float
    mean_macs: float


def choose_exits(
    scores: NDArray[np.float64],
    right: NDArray[np.float64],
    macs: Sequence[float],
    check_macs: Sequence[float],
    *,
    most: int = 4,
    tolerated_loss: float = 0.0,
    grid: Sequence[float] = tuple(np.arange(0.50, 1.0, 0.01).round(2)),
) -> ExitChoice:
    """The set of at most `most` exits and the threshold with the least mean multiply-adds.

    A choice is allowed if its accuracy on these samples is at least that of the best single answer less
    `tolerated_loss` (a share). The best single answer may be an early exit: compared with a last answer that is
    worse, early leaving would seem free although it loses accuracy that an exit already had. All sets are tried.
    `scores` and `right` are (K, N); `macs` (K,) are cumulative with every exit checked, and `check_macs` (K,) the
    part of each exit's own check, which is subtracted for exits that are not kept.

    Raises: CalibrationError for shapes that do not fit.
    """
    scores, right = np.asarray(scores), np.asarray(right)
    K = len(scores)
    if scores.shape != right.shape or len(macs) != K or len(check_macs) != K:
        raise CalibrationError(
            f"{K} exits of scores, {len(right)} of answers and {len(macs)} costs do not fit together"
        )
    samples = np.arange(scores.shape[1])
    checks = np.asarray(check_macs, dtype=np.float64)
    backbone = np.asarray(macs, dtype=np.float64) - np.cumsum(checks)
    least_right = (right.mean(axis=1).max() - tolerated_loss) * len(samples) - 1e-9
    best = ExitChoice([], 2.0, float(right[-1].mean()), float(backbone[-1] + checks[-1]))
    for size in range(1, min(most, K - 1) + 1):
        for exits in combinations(range(K - 1), size):
            subset = [*exits, K - 1]
            costs = backbone[subset] + np.cumsum(checks[subset])
            for threshold in grid:
                leaving = leave_at(scores[subset], [threshold] * size)
                hits = right[subset][leaving, samples].sum()
                if hits >= least_right and costs[leaving].mean() < best.mean_macs:
                    best = ExitChoice(list(exits), float(threshold), hits / len(samples), float(costs[leaving].mean()))
    return best

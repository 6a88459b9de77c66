"""Which of the trained exits to keep, and at which threshold.

Shape letters: K exits including the last answer, N samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pi_dynn.calibrate.exit_table import leave_at
from pi_dynn.errors import CalibrationError


@dataclass(frozen=True)
class ExitChoice:
    """Exits to keep (indices into the K - 1 early ones), their common threshold, and what they gave."""

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

    Only choices count whose accuracy on these samples is at least that of the best single answer less
    `tolerated_loss` (a share). That is the last answer, or an exit that is right more often: held against a last
    answer that does worse, images could leave early at the price of what the network knows half way. All sets
    are tried. `scores` and `right` are (K, N); `macs` (K,) are cumulative with every exit
    checked, of which `check_macs` (K,) each exit's own check, so that unused checks can be taken out.

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
            kept = [*exits, K - 1]
            costs = backbone[kept] + np.cumsum(checks[kept])
            for threshold in grid:
                at = leave_at(scores[kept], [threshold] * size)
                hits = right[kept][at, samples].sum()
                if hits >= least_right and costs[at].mean() < best.mean_macs:
                    best = ExitChoice(list(exits), float(threshold), hits / len(samples), float(costs[at].mean()))
    return best

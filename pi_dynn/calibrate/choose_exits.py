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
    """Exits to keep (indices into the K - 1 early ones), the threshold of each, and the resulting figures."""

    exits: list[int]
    thresholds: list[float]
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
    kept: Sequence[int] | None = None,
    thresholds: Sequence[float] | None = None,
) -> ExitChoice:
    """The set of at most `most` exits and the threshold with the least mean multiply-adds.

    A choice is allowed if its accuracy on these samples is at least that of the best single answer less
    `tolerated_loss` (a share). The best single answer may be an early exit: compared with a last answer that is
    worse, early leaving would seem free although it loses accuracy that an exit already had. All sets are tried, or
    only the exits `kept`; all thresholds of the grid, or only `thresholds`, one for all exits or one for each. What is
    given in this way is kept even where nothing is allowed, at the most accurate threshold.
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
    sizes = range(1, min(most, K - 1) + 1)
    sets = [exits for size in sizes for exits in combinations(range(K - 1), size)] if kept is None else [tuple(kept)]
    best = ExitChoice([], [], float(right[-1].mean()), float(backbone[-1] + checks[-1]))
    most_right = ExitChoice([], [], -1.0, 0.0)
    for exits in sets:
        subset = [*exits, K - 1]
        costs = backbone[subset] + np.cumsum(checks[subset])
        for common in grid if thresholds is None else (None,):
            limits = [float(common)] * len(exits) if common is not None else _for_each(thresholds or (), len(exits))
            leaving = leave_at(scores[subset], limits)
            hits = right[subset][leaving, samples].sum()
            choice = ExitChoice(list(exits), limits, hits / len(samples), float(costs[leaving].mean()))
            if hits >= least_right and choice.mean_macs < best.mean_macs:
                best = choice
            if choice.accuracy > most_right.accuracy:
                most_right = choice
    return most_right if kept is not None and not best.exits else best


def _for_each(thresholds: Sequence[float], exits: int) -> list[float]:
    """One threshold for each exit, from one for all or one for each. Raises: CalibrationError."""
    if len(thresholds) not in (1, exits):
        raise CalibrationError(f"{len(thresholds)} thresholds for {exits} exits: give one, or one for each")
    return [float(value) for value in (thresholds if len(thresholds) == exits else [thresholds[0]] * exits)]

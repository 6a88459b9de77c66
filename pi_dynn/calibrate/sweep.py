"""The published rule: one threshold for all exits, swept over a grid, then the weakest exits pruned.

Shape letters: K exits including the last answer.
"""

from collections.abc import Sequence

import numpy as np

from pi_dynn.calibrate.outcomes import ExitOutcomes, operating_point
from pi_dynn.calibrate.records import OperatingPoint
from pi_dynn.errors import CalibrationError
from pi_dynn.records import NEVER

PUBLISHED_GRID = tuple(np.arange(0.35, 0.901, 0.05).round(2).tolist())
PUBLISHED_EXITS = 3  # early exits that most of the published networks kept


def sweep(outcomes: ExitOutcomes, grid: Sequence[float] = PUBLISHED_GRID) -> list[OperatingPoint]:
    """One operating point for each common threshold of the grid.

    Raises: CalibrationError for an empty grid.
    """
    if len(grid) == 0:
        raise CalibrationError("the grid of thresholds is empty: give at least one")
    return [operating_point(outcomes, [float(value)] * outcomes.early_exits, threshold=float(value)) for value in grid]


def prune(outcomes: ExitOutcomes, point: OperatingPoint, keep: int = PUBLISHED_EXITS) -> OperatingPoint:
    """The same thresholds with all but the `keep` early exits of greatest rate times accuracy disabled.

    Images that left at a pruned exit go on to the next exit that is kept.
    """
    worth = [
        rate * (accuracy or 0.0)
        for rate, accuracy in zip(point.exit_rates[:-1], point.exit_accuracies[:-1], strict=True)
    ]
    best = sorted(range(len(worth)), key=lambda k: -worth[k])[:keep]
    limits = [value if k in best else NEVER for k, value in enumerate(point.thresholds)]
    return operating_point(outcomes, limits, **point.settings, kept=float(len(best)))

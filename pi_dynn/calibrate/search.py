"""One threshold per exit: the least cost for an accuracy, or the greatest accuracy for a cost.

Each exit's threshold is judged on those who get there. A price on cost traces the frontier, to which the common
thresholds are added. The points next to the goal are then moved exit by exit under the goal itself, unless the
images are few, and the goal picks among all of them.

Shape letters: K exits including the last answer, N samples, L levels of an exit.
"""

from collections.abc import Sequence

import numpy as np

from pi_dynn.calibrate.coordinate import Choose, CoordinateSearch
from pi_dynn.calibrate.goal import Goal, pareto, pick
from pi_dynn.calibrate.outcomes import ExitOutcomes, operating_point
from pi_dynn.calibrate.sweep import sweep
from pi_dynn.calibration_records import OperatingPoint

COMMON_GRID = tuple(np.linspace(0.02, 0.98, 49).round(2).tolist())
_PRICES = np.geomspace(1e-3, 3.0, 50)  # accuracy one would give for all of the full depth's cost
_STARTS = 2  # points on either side of the goal that are moved further
_TRACING = 20_000  # images the frontier is traced on; its points are then judged on all of them
_ENOUGH = 1000  # images from which on points may be moved under the goal; of fewer it would follow chance
_TIE = 1e-9  # among equal costs the more accurate, among equal accuracies the cheaper


def frontier(outcomes: ExitOutcomes, smoothing: bool = True) -> list[OperatingPoint]:
    """The best points found, from cheap to dear; the dearest is full depth where no exit is as good."""
    return _frontier(outcomes, sweep(outcomes, COMMON_GRID), smoothing)


def search(outcomes: ExitOutcomes, goal: Goal, smoothing: bool = True) -> OperatingPoint:
    """Thresholds that meet the goal best on these images, never worse than those of any common threshold.

    `smoothing` gives up a little on these images to do better on others (see CoordinateSearch).

    Raises: CalibrationError for a goal that cannot be met.
    """
    return search_with_frontier(outcomes, goal, smoothing)[0]


def search_with_frontier(
    outcomes: ExitOutcomes, goal: Goal, smoothing: bool = True
) -> tuple[OperatingPoint, list[OperatingPoint]]:
    """What `search` returns, and the frontier it was found on. Raises: CalibrationError."""
    goal.check(outcomes)
    common = sweep(outcomes, COMMON_GRID)
    points = _frontier(outcomes, common, smoothing)
    if goal == Goal() or (smoothing and outcomes.images < _ENOUGH):
        return pick(points, goal), points
    steps, choose = CoordinateSearch(outcomes, smoothing), _choice(outcomes, goal)
    moved = []
    for start in (*_around(points, goal), pick(common, goal)):
        levels = steps.improve(steps.levels(start.thresholds), choose)
        moved.append(operating_point(outcomes, steps.thresholds(levels)))
    best = pick([*points, *moved], goal)
    return best, pareto([*points, *(point for point in moved if point.accuracy >= best.accuracy or point is best)])


def _frontier(outcomes: ExitOutcomes, common: Sequence[OperatingPoint], smoothing: bool) -> list[OperatingPoint]:
    """Points at rising prices of cost, each from where the one before it ended, and those of common thresholds."""
    traced = outcomes.subset(np.arange(0, outcomes.images, -(-outcomes.images // _TRACING)))
    steps = CoordinateSearch(traced, smoothing)
    full_cost = traced.costs[-1] * traced.images
    levels = steps.closed
    points = [operating_point(outcomes, steps.thresholds(levels)), *common]
    for price in _PRICES:
        levels = steps.improve(
            levels, lambda hits, spent, price=price: hits / traced.images - price * spent / full_cost
        )
        points.append(operating_point(outcomes, steps.thresholds(levels)))
    return pareto([_without_settings(point) for point in points])


def _without_settings(point: OperatingPoint) -> OperatingPoint:
    return OperatingPoint.from_dict(point.to_dict() | {"settings": {}})


def _around(points: Sequence[OperatingPoint], goal: Goal) -> list[OperatingPoint]:
    """The points nearest to the goal on both of its sides; `points` rise in cost and accuracy."""
    met = [goal.met_by(point) for point in points]
    border = met.index(True) if goal.accuracy is not None and True in met else sum(met)
    return list(points[max(0, border - _STARTS) : border + _STARTS])


def _choice(outcomes: ExitOutcomes, goal: Goal) -> Choose:
    """The goal as a value of right answers and costs over all images."""
    N, full_cost = outcomes.images, outcomes.costs[-1] * outcomes.images

    def cheapest(hits: np.ndarray, spent: np.ndarray) -> np.ndarray:
        accuracy, share = hits / N, spent / full_cost
        enough = accuracy >= goal.accuracy - _TIE
        return np.where(enough, 2.0 - share + _TIE * accuracy, accuracy - 1.0 - _TIE * share)

    def most_accurate(hits: np.ndarray, spent: np.ndarray) -> np.ndarray:
        accuracy, share = hits / N, spent / full_cost
        within = spent <= goal.budget * N * (1 + _TIE)
        return np.where(within, 1.0 + accuracy - _TIE * share, -share)

    return cheapest if goal.accuracy is not None else most_accurate

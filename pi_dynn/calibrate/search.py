"""Thresholds for a goal: the least cost for an accuracy, or the greatest accuracy for a cost.

Three ways compete at every price of cost: one common threshold; a common one with a shift per exit that corrects
exits that are over- or underconfident; and a free threshold per exit. A way with more freedom fits the given images
better and may overfit, so it is taken only where cross-validation shows a gain (see validate.py). The thresholds
taken at all prices form the frontier, from which the goal picks.

Shape letters: K exits including the last answer, N samples, P prices.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pi_dynn.calibrate.coordinate import Choose, CoordinateSearch
from pi_dynn.calibrate.goal import Goal, pareto, pick
from pi_dynn.calibrate.outcomes import ExitOutcomes, Values, operating_point
from pi_dynn.calibrate.paths import best_at_prices, calibration_shifts, logit, path_totals, shifted_path
from pi_dynn.calibrate.records import OperatingPoint
from pi_dynn.calibrate.sweep import sweep
from pi_dynn.calibrate.validate import (
    Way,
    held_out_values,
    means_of_photographs,
    simplest_ways,
    values_at_prices,
)
from pi_dynn.records import NEVER

COMMON_GRID = tuple(np.linspace(0.02, 0.98, 49).round(2).tolist())
_PRICES = np.geomspace(1e-3, 3.0, 50)  # accuracy that the cost of full depth is worth
_STARTS = 2  # starting points of the exact search on either side of the goal
_TRACING = 20_000  # images on which the frontier is found; its points are then evaluated on all images
_TIE = 1e-9  # among equal costs the more accurate, among equal accuracies the cheaper


def common_way(outcomes: ExitOutcomes, prices: Values) -> NDArray[np.float64]:
    """One threshold for all exits at each price, (P, K - 1)."""
    return best_at_prices(outcomes, shifted_path(np.zeros(outcomes.early_exits)), prices)


def shifted_way(outcomes: ExitOutcomes, prices: Values) -> NDArray[np.float64]:
    """A common threshold, shifted at each exit to the same probability of harm, at each price, (P, K - 1)."""
    return best_at_prices(outcomes, shifted_path(calibration_shifts(outcomes)), prices)


def free_way(outcomes: ExitOutcomes, prices: Values, smoothing: bool = True) -> list[list[float]]:
    """A threshold per exit at each price, (P, K - 1); each search starts from the result at the price before."""
    steps = CoordinateSearch(outcomes, smoothing)
    N, full = outcomes.images, outcomes.costs[-1] * outcomes.images
    levels, thresholds = steps.full_depth, []
    for price in prices:

        def worth(hits: NDArray[np.float64], spent: NDArray[np.float64], price: float = price) -> NDArray[np.float64]:
            value: NDArray[np.float64] = hits / N - price * spent / full
            return value

        levels = steps.improve(levels, worth)
        thresholds.append(steps.thresholds(levels))
    return thresholds


WAYS: tuple[Way, ...] = (common_way, shifted_way, free_way)


def frontier(outcomes: ExitOutcomes) -> list[OperatingPoint]:
    """The Pareto front of the thresholds taken, from cheap to dear; the dearest is full depth if no exit is as good."""
    return pareto(_points(outcomes, _candidates(outcomes)))


def search(outcomes: ExitOutcomes, goal: Goal) -> OperatingPoint:
    """The thresholds for the goal, of the way that cross-validation prefers.

    Raises: CalibrationError for a goal that cannot be met.
    """
    return search_with_frontier(outcomes, goal)[0]


def search_with_frontier(outcomes: ExitOutcomes, goal: Goal) -> tuple[OperatingPoint, list[OperatingPoint]]:
    """The result of `search`, and the frontier. Raises: CalibrationError."""
    goal.check(outcomes)
    candidates = _candidates(outcomes)
    points = _points(outcomes, candidates)
    if goal == Goal():
        return pick(points, goal), pareto(points)
    best = _along(outcomes, _nearest(points, candidates, goal), goal)
    return best, pareto([*points, best])


def search_exactly(outcomes: ExitOutcomes, goal: Goal) -> OperatingPoint:
    """The best thresholds per exit for these images; they overfit them.

    Raises: CalibrationError for a goal that cannot be met.
    """
    goal.check(outcomes)
    common = sweep(outcomes, COMMON_GRID)
    points = [*common, *(operating_point(outcomes, limits) for limits in free_way(outcomes, _PRICES, smoothing=False))]
    steps, choose = CoordinateSearch(outcomes, smoothing=False), _choice(outcomes, goal)
    for start in (*_around(pareto(points), goal), pick(common, goal)):
        levels = steps.improve(steps.levels(start.thresholds), choose)
        points.append(operating_point(outcomes, steps.thresholds(levels)))
    return pick(points, goal)


def _candidates(outcomes: ExitOutcomes) -> list[list[float]]:
    """At each price the thresholds of the way that cross-validation chose."""
    traced = outcomes.subset(np.arange(0, outcomes.images, -(-outcomes.images // _TRACING)))
    if traced.photographs < 2:
        return [list(limits) for limits in common_way(traced, _PRICES)]
    chosen = simplest_ways(held_out_values(traced, WAYS, _PRICES))
    by_way = [way(traced, _PRICES) if number in chosen else [] for number, way in enumerate(WAYS)]
    return [list(by_way[number][place]) for place, number in enumerate(chosen)]


def _points(outcomes: ExitOutcomes, candidates: Sequence[Sequence[float]]) -> list[OperatingPoint]:
    return [operating_point(outcomes, limits) for limits in (*candidates, [NEVER] * outcomes.early_exits)]


def _nearest(points: Sequence[OperatingPoint], candidates: Sequence[Sequence[float]], goal: Goal) -> Sequence[float]:
    """The candidate whose point lies nearest to the goal; `points` begin with those of `candidates`."""
    if goal.budget is not None:
        away = [abs(point.mean_cost - goal.greatest_cost) for point in points[: len(candidates)]]
    else:
        away = [abs(point.accuracy - goal.least_accuracy) for point in points[: len(candidates)]]
    return candidates[int(np.argmin(away))]


def _along(outcomes: ExitOutcomes, limits: Values, goal: Goal) -> OperatingPoint:
    """The point for the goal on the path through `limits`: the cheapest on target, or the best within a budget."""
    for shifts in (_shifts(limits), np.zeros(outcomes.early_exits)):
        path = shifted_path(shifts)
        accuracy, cost = path_totals(outcomes, path)
        within = goal.budget is not None
        met = cost <= goal.greatest_cost * (1 + _TIE) if within else accuracy >= goal.least_accuracy - _TIE
        steps = np.flatnonzero(met)
        if len(steps) and within:
            return operating_point(outcomes, _best_within(outcomes, path[steps], accuracy[steps]))
        if len(steps):
            return operating_point(outcomes, path[steps[np.argmin(cost[steps])]])
    raise AssertionError("a goal that was checked is met by a common threshold")


def _best_within(
    outcomes: ExitOutcomes, path: NDArray[np.float64], accuracy: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of the steps of a path that keep a budget (T, K - 1) and their accuracies (T,), the one to take.

    The dearest, even if cheaper ones are a little more accurate here: on average deeper is better, and a few hundred
    images cannot resolve a tenth of a point. But some networks lose by depth: the most accurate step is taken where
    its gain over the dearest exceeds two standard errors; one is too few, for it is the best of hundreds of steps.
    """
    steps = path[[-1, int(np.argmax(accuracy))]]
    values = values_at_prices(outcomes, steps, [0.0, 0.0])
    (taken,) = simplest_ways(means_of_photographs(outcomes, values)[:, None, :], errors=2.0)
    best: NDArray[np.float64] = steps[taken]
    return best


def _shifts(limits: Values) -> NDArray[np.float64]:
    """Thresholds less their median on the logit scale; infinite for disabled exits."""
    limits = np.asarray(limits)
    logits = np.where(limits >= NEVER, np.inf, logit(limits))
    finite = logits[np.isfinite(logits)]
    return logits - (np.median(finite) if len(finite) else 0.0)


def _around(points: Sequence[OperatingPoint], goal: Goal) -> list[OperatingPoint]:
    """The points nearest to the goal on either side; `points` rise in cost and accuracy."""
    met = [goal.met_by(point) for point in points]
    border = met.index(True) if goal.accuracy is not None and True in met else sum(met)
    return list(points[max(0, border - _STARTS) : border + _STARTS])


def _choice(outcomes: ExitOutcomes, goal: Goal) -> Choose:
    """The objective of the goal, from right answers and costs over all images."""
    N, full_cost = outcomes.images, outcomes.costs[-1] * outcomes.images

    def cheapest(hits: NDArray[np.float64], spent: NDArray[np.float64]) -> NDArray[np.float64]:
        accuracy, share = hits / N, spent / full_cost
        enough = accuracy >= goal.least_accuracy - _TIE
        value: NDArray[np.float64] = np.where(enough, 2.0 - share + _TIE * accuracy, accuracy - 1.0 - _TIE * share)
        return value

    def most_accurate(hits: NDArray[np.float64], spent: NDArray[np.float64]) -> NDArray[np.float64]:
        accuracy, share = hits / N, spent / full_cost
        within = spent <= goal.greatest_cost * N * (1 + _TIE)
        value: NDArray[np.float64] = np.where(within, 1.0 + accuracy - _TIE * share, -share)
        return value

    return cheapest if goal.accuracy is not None else most_accurate

"""The goal that thresholds shall meet, and the choice of the operating point that meets it best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pi_dynn.calibrate.outcomes import ExitOutcomes
from pi_dynn.calibrate.records import OperatingPoint
from pi_dynn.errors import CalibrationError

_TOLERANCE = 1e-9  # of a share: 3 of 4 right reach a target of 0.75


@dataclass(frozen=True)
class Goal:
    """The least accuracy (0..1) or the greatest mean cost (in the unit of the costs); without either, the knee.

    Raises: CalibrationError if both are given.
    """

    accuracy: float | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        if self.accuracy is not None and self.budget is not None:
            raise CalibrationError("a target accuracy and a budget exclude each other: give one of them")

    @property
    def least_accuracy(self) -> float:
        """The accuracy to reach; 0 without a target."""
        return 0.0 if self.accuracy is None else self.accuracy

    @property
    def greatest_cost(self) -> float:
        """The budget; infinite without one."""
        return math.inf if self.budget is None else self.budget

    def check(self, outcomes: ExitOutcomes) -> None:
        """Raise CalibrationError for a goal that cannot be reached on these images."""
        full, least = outcomes.full_depth_accuracy, float(outcomes.costs[0])
        if self.accuracy is not None and not 0.0 < self.accuracy <= full + _TOLERANCE:
            raise CalibrationError(
                f"a target accuracy of {100 * self.accuracy:.2f} % cannot be reached: full depth has "
                f"{100 * full:.2f} % on these {outcomes.images} images; ask for at most that"
            )
        if self.budget is not None and not self.budget >= least * (1 - _TOLERANCE):
            raise CalibrationError(
                f"a budget of {self.budget:g} is below the {least:g} that leaving at the first exit costs: "
                "allow more, or use a bundle with an earlier exit"
            )

    def met_by(self, point: OperatingPoint) -> bool:
        """Whether a point reaches the accuracy, or keeps within the budget."""
        if self.accuracy is not None:
            return point.accuracy >= self.accuracy - _TOLERANCE
        return self.budget is None or point.mean_cost <= self.budget * (1 + _TOLERANCE)


def pick(points: Sequence[OperatingPoint], goal: Goal) -> OperatingPoint:
    """The cheapest point that reaches the accuracy, the most accurate within the budget, or the knee.

    If no point meets the goal, the one nearest to it.
    """
    fitting = [point for point in points if goal.met_by(point)]
    if goal.accuracy is not None:
        if not fitting:
            return max(points, key=lambda point: (point.accuracy, -point.mean_cost))
        return min(fitting, key=lambda point: (point.mean_cost, -point.accuracy))
    if goal.budget is not None:
        if not fitting:
            return min(points, key=lambda point: (point.mean_cost, -point.accuracy))
        return max(fitting, key=lambda point: (point.accuracy, -point.mean_cost))
    return knee(points)


def knee(points: Sequence[OperatingPoint]) -> OperatingPoint:
    """The point farthest above the line from the cheapest to the most accurate, both axes scaled to 0..1.

    Source: Satopaa et al., Finding a "Kneedle" in a Haystack (2011), section III.
    """
    costs = np.array([point.mean_cost for point in points])
    accuracies = np.array([point.accuracy for point in points])
    cheap, good = int(costs.argmin()), int(np.lexsort((costs, -accuracies))[0])
    span, rise = costs[good] - costs[cheap], accuracies[good] - accuracies[cheap]
    if span <= 0 or rise <= 0:
        return points[good]
    height = (accuracies - accuracies[cheap]) / rise - (costs - costs[cheap]) / span
    return points[int(height.argmax())]


def pareto(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """The Pareto front: points that no other beats, from cheap to dear and so from less to more accurate."""
    front: list[OperatingPoint] = []
    for point in sorted(points, key=lambda point: (point.mean_cost, -point.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front

"""The calibration rules by name: from outcomes and settings to thresholds."""

from collections.abc import Callable
from dataclasses import dataclass

from pi_dynn.calibrate.bounds import HARM
from pi_dynn.calibrate.goal import Goal, pareto, pick
from pi_dynn.calibrate.outcomes import ExitOutcomes, operating_point
from pi_dynn.calibrate.percentile import best_ratio, msdnet_points, percentile_points
from pi_dynn.calibrate.records import OperatingPoint, Promise
from pi_dynn.calibrate.risk import RiskSettings, common_path, control_risk, split_control_risk
from pi_dynn.calibrate.search import search_with_frontier
from pi_dynn.calibrate.sweep import PUBLISHED_GRID, prune, sweep
from pi_dynn.errors import CalibrationError


@dataclass(frozen=True)
class RuleSettings:
    """The settings of all rules; each rule ignores those it does not use.

    `max_loss` is a target of full depth's accuracy less that share. `keep` prunes a sweep to so many early exits.
    """

    target_accuracy: float | None = None
    max_loss: float | None = None
    budget: float | None = None
    grid: tuple[float, ...] = PUBLISHED_GRID
    keep: int | None = None
    epsilon: float = 0.01
    delta: float = 0.1
    risk: str = HARM
    corrected: bool = True
    per_exit: bool = False

    def goal(self, outcomes: ExitOutcomes) -> Goal:
        """The goal in these settings; it may be empty. Raises: CalibrationError if it cannot be reached."""
        accuracy = self.target_accuracy
        if self.max_loss is not None:
            if accuracy is not None:
                raise CalibrationError("a target accuracy and a tolerated loss set the same goal: give one of them")
            accuracy = outcomes.full_depth_accuracy - self.max_loss
        goal = Goal(accuracy, self.budget)
        goal.check(outcomes)
        return goal


@dataclass(frozen=True)
class Choice:
    """The chosen point, all points of the rule, their Pareto front as `curve`, and the promise if there is one.

    `before` is the point before pruning; None without pruning.
    """

    point: OperatingPoint
    points: list[OperatingPoint]
    curve: list[OperatingPoint]
    promise: Promise | None = None
    before: OperatingPoint | None = None


def choose(rule: str, outcomes: ExitOutcomes, settings: RuleSettings) -> Choice:
    """The choice of the rule `rule`. Raises: CalibrationError for an unknown name or settings the rule cannot meet."""
    if rule not in RULES:
        raise CalibrationError(f"no rule {rule!r}: give one of {', '.join(RULES)}")
    return RULES[rule](outcomes, settings)


def _sweep(outcomes: ExitOutcomes, settings: RuleSettings) -> Choice:
    points = sweep(outcomes, settings.grid)
    point = pick(points, settings.goal(outcomes))
    if settings.keep is None:
        return Choice(point, points, pareto(points))
    return Choice(prune(outcomes, point, settings.keep), points, pareto(points), before=point)


def _search(outcomes: ExitOutcomes, settings: RuleSettings, target: str) -> Choice:
    goal = settings.goal(outcomes)
    if getattr(goal, target) is None:
        name = "a target accuracy or a tolerated loss" if target == "accuracy" else "a budget"
        raise CalibrationError(f"this rule searches for {name}: give one")
    point, curve = search_with_frontier(outcomes, goal)
    return Choice(point, curve, curve)


def _percentile(outcomes: ExitOutcomes, settings: RuleSettings) -> Choice:
    points = percentile_points(outcomes)
    goal = settings.goal(outcomes)
    point = best_ratio(points) if goal == Goal() else pick(points, goal)
    return Choice(point, points, pareto(points))


def _msdnet(outcomes: ExitOutcomes, settings: RuleSettings) -> Choice:
    points = msdnet_points(outcomes)
    return Choice(pick(points, settings.goal(outcomes)), points, pareto(points))


def _risk(outcomes: ExitOutcomes, settings: RuleSettings) -> Choice:
    risk = RiskSettings(settings.epsilon, settings.delta, settings.risk, settings.corrected)
    if settings.per_exit:
        point, promise = split_control_risk(outcomes, risk)
        return Choice(point, [point], [point], promise)
    point, promise = control_risk(outcomes, risk)
    # Every step before the one chosen was tested as well: the whole curve keeps the promise.
    safe = [step for step in common_path(outcomes) if step[0] >= point.thresholds[0]]
    points = [operating_point(outcomes, step) for step in safe]
    return Choice(point, points, pareto(points), promise)


RULES: dict[str, Callable[[ExitOutcomes, RuleSettings], Choice]] = {
    "sweep": _sweep,
    "target-accuracy": lambda outcomes, settings: _search(outcomes, settings, "accuracy"),
    "budget": lambda outcomes, settings: _search(outcomes, settings, "budget"),
    "percentile": _percentile,
    "msdnet": _msdnet,
    "risk": _risk,
}

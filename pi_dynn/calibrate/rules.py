"""Every rule by its name: from outcomes and settings to thresholds."""

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
    """What a person may ask of a rule; what a rule does not use it ignores.

    `max_loss` asks for full depth's accuracy less that share. `keep` prunes a sweep to so many early exits.
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
        """The goal these settings name; it may be empty. Raises: CalibrationError."""
        accuracy = self.target_accuracy
        if self.max_loss is not None:
            if accuracy is not None:
                raise CalibrationError("a target accuracy and a tolerated loss say the same: give one of them")
            accuracy = outcomes.full_depth_accuracy - self.max_loss
        goal = Goal(accuracy, self.budget)
        goal.check(outcomes)
        return goal


@dataclass(frozen=True)
class Choice:
    """What a rule chose, all points it looked at, the best of them as a curve, and what it promises.

    `before` is the point before pruning, where there was any.
    """

    point: OperatingPoint
    points: list[OperatingPoint]
    curve: list[OperatingPoint]
    promise: Promise | None = None
    before: OperatingPoint | None = None


def choose(rule: str, outcomes: ExitOutcomes, settings: RuleSettings) -> Choice:
    """Apply the rule named. Raises: CalibrationError for an unknown name or what the rule cannot do."""
    if rule not in RULES:
        raise CalibrationError(f"no rule {rule!r}: give one of {', '.join(RULES)}")
    return RULES[rule](outcomes, settings)


def _sweep(outcomes: ExitOutcomes, settings: RuleSettings) -> Choice:
    points = sweep(outcomes, settings.grid)
    point = pick(points, settings.goal(outcomes))
    if settings.keep is None:
        return Choice(point, points, pareto(points))
    return Choice(prune(outcomes, point, settings.keep), points, pareto(points), before=point)


def _search(outcomes: ExitOutcomes, settings: RuleSettings, wanted: str) -> Choice:
    goal = settings.goal(outcomes)
    if getattr(goal, wanted) is None:
        name = "a target accuracy or a tolerated loss" if wanted == "accuracy" else "a budget"
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
    asked = RiskSettings(settings.epsilon, settings.delta, settings.risk, settings.corrected)
    if settings.per_exit:
        point, promise = split_control_risk(outcomes, asked)
        return Choice(point, [point], [point], promise)
    point, promise = control_risk(outcomes, asked)
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

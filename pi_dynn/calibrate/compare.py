"""A comparison of all rules at equal cost: thresholds chosen on some images, evaluated on others."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from pi_dynn.calibrate.outcomes import ExitOutcomes, operating_point
from pi_dynn.calibrate.paths import path_totals, shifted_path
from pi_dynn.calibrate.records import RuleResult
from pi_dynn.calibrate.rules import RuleSettings, choose
from pi_dynn.calibrate.sweep import PUBLISHED_EXITS, prune, sweep
from pi_dynn.errors import CalibrationError
from pi_dynn.records import NEVER

LEVELS = (0.6, 0.7, 0.8, 0.85, 0.9)  # common thresholds whose mean costs are the budgets of the other rules
PROMISES = (0.005, 0.01, 0.02)
_BY_BUDGET = ("budget", "percentile", "msdnet")


def compare_rules(
    finding: ExitOutcomes,
    reporting: ExitOutcomes,
    cost_unit: str,
    levels: Sequence[float] = LEVELS,
    own: Sequence[float] | None = None,
) -> list[RuleResult]:
    """Results on `reporting` of thresholds chosen on `finding`, grouped by the cost they were allowed.

    Each level of the published sweep sets a budget: what it costs on `finding`. `own` are the bundle's
    thresholds. A promise for which `finding` is too small is left out.
    """
    results = [_result("full depth", "", reporting, [NEVER] * reporting.early_exits, cost_unit)]
    if own is not None:
        results.append(_result("bundle", "its own thresholds", reporting, own, cost_unit))
    for common in sweep(finding, levels):
        setting = f"{common.settings['threshold']:.2f}"
        pruned = prune(finding, common)
        results.append(_result("sweep", setting, reporting, common.thresholds, cost_unit))
        if reporting.early_exits > PUBLISHED_EXITS:
            results.append(_result("sweep, pruned", setting, reporting, pruned.thresholds, cost_unit))
        for rule in _BY_BUDGET:
            point = choose(rule, finding, RuleSettings(budget=common.mean_cost)).point
            results.append(_result(rule, f"cost of {setting}", reporting, point.thresholds, cost_unit))
    return results + list(_promises(finding, reporting, cost_unit))


def _promises(finding: ExitOutcomes, reporting: ExitOutcomes, cost_unit: str) -> Iterable[RuleResult]:
    for risk in ("harm", "gap"):
        for epsilon in PROMISES:
            try:
                choice = choose("risk", finding, replace(RuleSettings(), epsilon=epsilon, risk=risk))
            except CalibrationError:
                continue
            setting = f"{risk} <= {100 * epsilon:g} points"
            yield _result("risk", setting, reporting, choice.point.thresholds, cost_unit)


def _result(rule: str, setting: str, outcomes: ExitOutcomes, thresholds: Sequence[float], cost_unit: str) -> RuleResult:
    point = operating_point(outcomes, thresholds)
    accuracy, cost = path_totals(outcomes, shifted_path([0.0] * outcomes.early_exits))
    swept = float(np.interp(point.mean_cost, cost, accuracy))
    return RuleResult(rule, setting, point, cost_unit, point.accuracy - swept)

"""Every rule by its name, and all of them side by side."""

import numpy as np
import pytest

from pi_dynn.calibrate.compare import compare_rules
from pi_dynn.calibrate.outcomes import ExitOutcomes, operating_point
from pi_dynn.calibrate.rules import RULES, RuleSettings, choose
from pi_dynn.errors import CalibrationError
from tests.calibrate.synthetic import synthetic_outcomes


@pytest.fixture(scope="module")
def outcomes():
    return synthetic_outcomes(1500)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_gives_a_point_and_a_curve(rule, outcomes):
    settings = RuleSettings(epsilon=0.02, budget=70.0 if rule != "target-accuracy" else None)
    if rule == "target-accuracy":
        settings = RuleSettings(max_loss=0.02)
    choice = choose(rule, outcomes, settings)
    assert choice.point.thresholds == operating_point(outcomes, choice.point.thresholds).thresholds
    assert choice.curve and (choice.promise is not None) == (rule == "risk")
    costs = [point.mean_cost for point in choice.curve]
    assert costs == sorted(costs)
    if rule not in ("risk", "target-accuracy"):
        assert choice.point.mean_cost <= 70.0


def test_every_point_of_the_risk_curve_is_safer_than_the_one_chosen(outcomes):
    choice = choose("risk", outcomes, RuleSettings(epsilon=0.03))
    assert min(point.mean_cost for point in choice.curve) >= choice.point.mean_cost


def test_half_of_the_images_may_find_a_path_of_their_own(outcomes):
    assert choose("risk", outcomes, RuleSettings(epsilon=0.05, per_exit=True)).promise.bound <= 0.05


def test_pruning_keeps_the_point_before(outcomes):
    choice = choose("sweep", outcomes, RuleSettings(budget=70.0, keep=2))
    assert choice.before in choice.points and choice.point.settings["kept"] == 2
    assert sum(rate > 0 for rate in choice.point.exit_rates[:-1]) <= 2


def test_the_percentile_rule_takes_the_best_ratio_unless_asked_otherwise(outcomes):
    choice = choose("percentile", outcomes, RuleSettings())
    assert choice.point == max(choice.points, key=lambda point: point.accuracy / point.mean_cost)


@pytest.mark.parametrize(
    ("rule", "settings", "message"),
    [
        ("luck", {}, "no rule 'luck': give one of sweep, target-accuracy"),
        ("target-accuracy", {}, "searches for a target accuracy or a tolerated loss"),
        ("budget", {}, "searches for a budget"),
        ("target-accuracy", {"target_accuracy": 1.0}, "full depth has"),
        ("sweep", {"target_accuracy": 0.9, "max_loss": 0.1}, "set the same goal"),
        ("budget", {"budget": 50.0, "max_loss": 0.1}, "exclude each other"),
        ("budget", {"budget": 1.0}, "below the 20"),
    ],
)
def test_what_a_rule_cannot_do(rule, settings, message, outcomes):
    with pytest.raises(CalibrationError, match=message):
        choose(rule, outcomes, RuleSettings(**settings))


def test_the_comparison_is_at_equal_cost_and_on_other_images(outcomes):
    finding, reporting = outcomes.subset(np.arange(750)), outcomes.subset(np.arange(750, 1500))
    results = compare_rules(finding, reporting, "macs", levels=(0.8,), own=[0.9] * 4)
    assert [result.rule for result in results[:7]] == [
        "full depth",
        "bundle",
        "sweep",
        "sweep, pruned",
        "budget",
        "percentile",
        "msdnet",
    ]
    for result in results:
        assert result.point == operating_point(reporting, result.point.thresholds, **result.point.settings)
    budget = operating_point(finding, results[2].point.thresholds).mean_cost
    for result in results[4:7]:
        assert operating_point(finding, result.point.thresholds).mean_cost <= budget * (1 + 1e-9)


def test_promises_that_cannot_be_made_are_left_out():
    few = synthetic_outcomes(100)
    assert "risk" not in {result.rule for result in compare_rules(few, few, "macs", levels=(0.8,))}
    many = ExitOutcomes(np.tile(few.scores, 9), np.ones((5, 900)), few.costs)
    assert "risk" in {result.rule for result in compare_rules(many, many, "macs", levels=(0.8,))}

"""Options of the rules that choose thresholds, and the settings they make."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pi_dynn.cli.options import NUMBERS

if TYPE_CHECKING:
    from pi_dynn.calibrate.rules import RuleSettings

RULE_NAMES = ("sweep", "target-accuracy", "budget", "percentile", "msdnet", "risk")
SCORE_NAMES = ("gate", "max-probability", "margin", "entropy", "patience")
_UNITS = {"budget_macs": ("macs", 1e6), "budget_ms": ("s", 1e-3), "budget_mj": ("J", 1e-3)}

_OPTIONS = (
    click.option("--rule", type=click.Choice(RULE_NAMES), required=True, help="How thresholds are chosen."),
    click.option(
        "--score", type=click.Choice(SCORE_NAMES), default="gate", show_default=True, help="What is compared."
    ),
    click.option("--target-accuracy", type=click.FloatRange(0, 100, min_open=True), metavar="PERCENT"),
    click.option("--max-loss", type=click.FloatRange(0, 100), metavar="POINTS", help="Target: full depth less this."),
    click.option("--budget-macs", type=click.FloatRange(0, min_open=True), metavar="M", help="Million multiply-adds."),
    click.option(
        "--budget-ms", type=click.FloatRange(0, min_open=True), metavar="MS", help="Mean latency; profile --fit."
    ),
    click.option("--budget-mj", type=click.FloatRange(0, min_open=True), metavar="MJ", help="Mean energy; --costs."),
    click.option(
        "--costs",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Measured costs, not the latency model's: energy --each-exit --save, benchmark --each-exit --json.",
    ),
    click.option("--cost-unit", type=click.Choice(["macs", "ms", "mj"]), help="Unit of costs. [default: the budget's]"),
    click.option("--grid", type=NUMBERS, metavar="T1,T2,...", help="Thresholds of a sweep. [default: 0.35 to 0.90]"),
    click.option("--keep", type=click.IntRange(1), metavar="N", help="Prune a sweep to its N best early exits."),
    click.option(
        "--epsilon",
        type=click.FloatRange(0, 100, min_open=True, max_open=True),
        default=1.0,
        show_default=True,
        metavar="POINTS",
        help="Risk: the most that may be lost...",
    ),
    click.option(
        "--delta",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.1,
        show_default=True,
        help="... but for this probability.",
    ),
    click.option(
        "--risk",
        type=click.Choice(["harm", "gap"]),
        default="harm",
        show_default=True,
        help="Count images harmed, or the gap in accuracy.",
    ),
    click.option("--uncorrected", is_flag=True, help="Risk: trust the normal limit instead of the exact test."),
    click.option("--per-exit", is_flag=True, help="Risk: half of the images find thresholds for each exit."),
)


def rule_options(command: Callable) -> Callable:
    """The options of all rules."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def budget_and_unit(options: dict) -> tuple[float | None, str]:
    """The budget in SI units, if one is given, and the unit of all costs.

    Raises: click.UsageError for options that contradict each other.
    """
    budgets = [name for name in _UNITS if options[name] is not None]
    if len(budgets) > 1:
        raise click.UsageError("give only one of --budget-macs, --budget-ms and --budget-mj")
    named = {"macs": "macs", "ms": "s", "mj": "J", None: None}[options["cost_unit"]]
    if not budgets:
        return None, named or "macs"
    unit, scale = _UNITS[budgets[0]]
    if named not in (None, unit):
        raise click.UsageError(
            f"--{budgets[0].replace('_', '-')} and --cost-unit {options['cost_unit']} contradict each other"
        )
    return options[budgets[0]] * scale, unit


def rule_settings(options: dict[str, Any], budget: float | None) -> "RuleSettings":
    """The settings these options describe."""
    from pi_dynn.calibrate.rules import RuleSettings
    from pi_dynn.calibrate.sweep import PUBLISHED_GRID

    target, loss = options["target_accuracy"], options["max_loss"]
    return RuleSettings(
        target_accuracy=None if target is None else target / 100,
        max_loss=None if loss is None else loss / 100,
        budget=budget,
        grid=tuple(options["grid"] or PUBLISHED_GRID),
        keep=options["keep"],
        epsilon=options["epsilon"] / 100,
        delta=options["delta"],
        risk=options["risk"],
        corrected=not options["uncorrected"],
        per_exit=options["per_exit"],
    )

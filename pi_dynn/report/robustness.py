"""Robustness in text and Markdown."""

from pi_dynn.report.text import markdown_table, mega, percent, table
from pi_dynn.robustness_records import ConditionResult, RobustnessResult

SURE = 1e-3  # a chance below which exits are said to have moved


def conditions_table(result: RobustnessResult, markdown: bool = False) -> str:
    """One line per condition: accuracy with exits and at full depth, mean cost and depth, and the exits."""
    headers = ("images", "severity", "accuracy", "full depth", "mean cost", "blocks", "exits in %", "drift p")
    rows = [_row(one) for one in result.conditions]
    return (markdown_table if markdown else table)(headers, rows, left=1)


def _row(one: ConditionResult) -> tuple[str, ...]:
    return (
        one.corruption or "as they are",
        "-" if one.severity is None else str(one.severity),
        percent(one.acc1, 2),
        percent(one.full_depth_acc1, 2),
        mega(one.mean_macs),
        f"{one.mean_depth:.2f}",
        " ".join(f"{100 * rate:.0f}" for rate in one.exit_rates),
        "-" if one.p_value is None else f"{one.p_value:.1e}" + (" *" if one.p_value < SURE else ""),
    )


def robustness_text(result: RobustnessResult) -> str:
    """The table, the mean corruption errors, and what a star means."""
    lines = [f"{result.dataset}: {result.conditions[0].images} images per line", conditions_table(result)]
    summary = result.summary
    if summary is not None:
        lines.append(
            f"mean corruption error {percent(summary.mean_error, 2)} with exits, "
            f"{percent(summary.full_depth_mean_error, 2)} at full depth"
        )
        if summary.beyond_clean is not None:
            lines.append(
                f"beyond the clean error {100 * summary.beyond_clean:+.2f} points with exits, "
                f"{100 * summary.full_depth_beyond_clean:+.2f} at full depth"
            )
        lines.append(_relative_line(result))
    if any(one.p_value is not None and one.p_value < SURE for one in result.conditions):
        lines.append(f"* images leave elsewhere than clean ones: chance below {SURE:g}")
    return "\n".join(lines)


def _relative_line(result: RobustnessResult) -> str:
    summary = result.summary
    if summary.relative is None:
        return "not divided by AlexNet's errors: those are of the whole of ImageNet-C only"
    return (
        f"mCE {percent(summary.relative, 2)} with exits, {percent(summary.full_depth_relative, 2)} at full depth "
        "(relative to AlexNet)"
    )

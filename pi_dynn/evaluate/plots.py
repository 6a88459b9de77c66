"""The figures of a calibration and of an evaluation by class. Needs matplotlib, the extra [plots]."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pi_dynn.calibrate.records import (
    CalibrationRecord,
    ExitReliability,
    OperatingPoint,
    RuleResult,
    StaticNetwork,
)
from pi_dynn.evaluate.records import ClassResult
from pi_dynn.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCALE = {"macs": (1e-6, "million multiply-adds"), "s": (1e3, "ms"), "J": (1e3, "mJ")}
_MARKERS = "osD^vP*X"


def trade_off_figure(
    results: Sequence[RuleResult], chosen: OperatingPoint, cost_unit: str, static: Sequence[StaticNetwork] = ()
) -> "Figure":
    """Accuracy against mean cost for every rule, the chosen point, and static networks at their full depth."""
    figure, (axes,) = new_figure()
    scale, unit = _SCALE[cost_unit]
    for number, rule in enumerate(dict.fromkeys(result.rule for result in results)):
        points = sorted(
            (scale * result.point.mean_cost, 100 * result.point.accuracy) for result in results if result.rule == rule
        )
        axes.plot(*zip(*points, strict=True), marker=_MARKERS[number % len(_MARKERS)], ms=5, lw=1, label=rule)
    if static:
        points = sorted((scale * network.cost, 100 * network.accuracy) for network in static)
        axes.plot(*zip(*points, strict=True), "k--s", lw=1, label="static networks")
        for network in static:
            axes.annotate(
                network.name, (scale * network.cost, 100 * network.accuracy), fontsize=7, ha="right", va="top"
            )
    axes.plot(scale * chosen.mean_cost, 100 * chosen.accuracy, "r*", ms=16, label="chosen", zorder=5)
    axes.set(xlabel=f"mean cost ({unit})", ylabel="accuracy (%)", title="Accuracy against mean cost")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def exits_figure(record: CalibrationRecord, point: OperatingPoint) -> "Figure":
    """The share of images that leave at each exit, and of these the right ones."""
    figure, (axes,) = new_figure()
    names = [f"block {block}" for block in record.exits]
    axes.bar(names, [100 * rate for rate in point.exit_rates], color="tab:blue", label="leave here")
    right = [100 * rate * (accuracy or 0.0) for rate, accuracy in zip(point.exit_rates, point.exit_accuracies)]
    axes.bar(names, right, width=0.5, color="tab:green", label="and are right")
    axes.set(ylabel="images (%)", title=f"Exits with rule {record.rule}")
    axes.legend(fontsize=8, loc="upper right")
    return figure


def reliability_figure(rows: Sequence[ExitReliability]) -> "Figure":
    """Accuracy against confidence for each exit, before and after temperature scaling."""
    figure, axes = new_figure(len(rows), 2.6 * len(rows), 3.2)
    for place, row in zip(axes, rows, strict=True):
        place.plot([0, 1], [0, 1], color="grey", lw=1)
        for bins, style, error in ((row.bins_before, "o-", row.error_before), (row.bins_after, "s-", row.error_after)):
            name = f"{'before' if style == 'o-' else 'after'}, {100 * error:.1f} %"
            place.plot([one.confidence for one in bins], [one.accuracy for one in bins], style, ms=3, lw=1, label=name)
        place.set(title=f"block {row.block_index}", xlabel="confidence", aspect="equal", xlim=(0, 1), ylim=(0, 1))
        place.legend(fontsize=7, loc="upper left")
    axes[0].set_ylabel("accuracy")
    return figure


def sweep_figure(points: Sequence[OperatingPoint], cost_unit: str) -> "Figure":
    """Accuracy and mean cost against the setting that was swept."""
    figure, (axes,) = new_figure()
    scale, unit = _SCALE[cost_unit]
    name = next(iter(points[0].settings), "point")
    swept = [point.settings.get(name, number) for number, point in enumerate(points)]
    axes.plot(swept, [100 * point.accuracy for point in points], "o-", color="tab:blue")
    axes.set(xlabel=name, title="Sweep")
    axes.set_ylabel("accuracy (%)", color="tab:blue")
    costs = axes.twinx()
    costs.plot(swept, [scale * point.mean_cost for point in points], "s--", color="tab:red")
    costs.set_ylabel(f"mean cost ({unit})", color="tab:red")
    axes.grid(alpha=0.3)
    return figure


def confusion_figure(result: ClassResult) -> "Figure":
    """The confusion matrix: shares of each true class (rows) by answer (columns), with the counts written in."""
    count = len(result.labels)
    side = min(60.0, 3.0 + 0.36 * count)
    figure, (axes,) = new_figure(1, side + 0.5, side)
    totals = [max(1, sum(row)) for row in result.matrix]
    shares = [[100 * one / total for one in row] for row, total in zip(result.matrix, totals, strict=True)]
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    size = 8 if count <= 60 else 4
    axes.set_xticks(range(count), result.labels, rotation=90, fontsize=size)
    axes.set_yticks(range(count), result.labels, fontsize=size)
    axes.set(xlabel="answer", ylabel="true class", title=f"{result.images:,} images of {result.dataset}")
    for k, row in enumerate(result.matrix):
        for other, images in enumerate(row):
            if images:
                colour = "white" if shares[k][other] > 55 else "black"
                axes.text(other, k, str(images), ha="center", va="center", fontsize=size, color=colour)
    figure.colorbar(picture, ax=axes, label="of the true class (%)", shrink=0.7)
    return figure

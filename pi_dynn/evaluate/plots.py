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
from pi_dynn.stats import wilson_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCALE = {"macs": (1e-6, "million multiply-adds"), "s": (1e3, "ms"), "J": (1e3, "mJ")}
_MARKERS = "osD^vP*X"


def trade_off_figure(
    results: Sequence[RuleResult],
    chosen: OperatingPoint,
    cost_unit: str,
    static: Sequence[StaticNetwork] = (),
    images: int | None = None,
) -> "Figure":
    """Accuracy against mean cost for every rule, the chosen point, and static networks at their full depth.

    With the number of `images` behind the accuracies the chosen point gets its 95 % interval.
    """
    figure, (axes,) = new_figure()
    scale, unit = _SCALE[cost_unit]
    full = results[0].point
    for number, rule in enumerate(dict.fromkeys(result.rule for result in results)):
        points = sorted(
            (scale * result.point.mean_cost, 100 * result.point.accuracy) for result in results if result.rule == rule
        )
        # The swept threshold is a curve; the other rules are points, hollow so that none hides another.
        axes.plot(
            *zip(*points, strict=True),
            linestyle="-" if rule == "sweep" else "none",
            marker=_MARKERS[number % len(_MARKERS)],
            markerfacecolor="none" if number else None,
            ms=5 + number,
            lw=1.2,
            color=f"C{number}",
            label=rule,
        )
    axes.axhline(100 * full.accuracy, color="0.6", lw=0.8, ls=":")
    if static:
        points = sorted((scale * network.cost, 100 * network.accuracy) for network in static)
        axes.plot(*zip(*points, strict=True), "k--s", lw=1, label="static networks")
        for network in static:
            axes.annotate(
                network.name, (scale * network.cost, 100 * network.accuracy), fontsize=7, ha="right", va="top"
            )
    place = (scale * chosen.mean_cost, 100 * chosen.accuracy)
    if images:
        low, high = wilson_interval(round(chosen.accuracy * images), images)
        error = [[place[1] - 100 * low], [100 * high - place[1]]]
        axes.errorbar(*place, yerr=error, color="tab:red", lw=1, capsize=3, zorder=4)
    axes.plot(*place, "r*", ms=14, zorder=5, label="chosen")
    share = 100 * chosen.mean_cost / full.mean_cost
    words = f"{place[1]:.1f} % right for {place[0]:.3g} {unit},\n{share:.0f} % of the cost of full depth"
    if images:
        words += f"; bar: 95 % interval of {images} images"
    axes.annotate(words, place, xytext=(12, -4), textcoords="offset points", fontsize=8, va="top")
    axes.set(xlabel=f"mean cost ({unit})", ylabel="accuracy (%)", title="Accuracy against mean cost")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper right")
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
            name = f"{'before' if style == 'o-' else 'after'}: error {100 * error:.1f} %"
            place.plot([one.confidence for one in bins], [one.accuracy for one in bins], style, ms=3, lw=1, label=name)
        place.set(title=f"block {row.block_index}", xlabel="confidence", aspect="equal", xlim=(0, 1), ylim=(0, 1))
        place.legend(fontsize=7, loc="upper left")
    axes[0].set_ylabel("accuracy")
    return figure


def sweep_figure(points: Sequence[OperatingPoint], cost_unit: str) -> "Figure":
    """Accuracy and mean cost against the setting that was swept; for a rule that sweeps none, the points it found."""
    figure, (axes,) = new_figure()
    scale, unit = _SCALE[cost_unit]
    costs = [scale * point.mean_cost for point in points]
    accuracies = [100 * point.accuracy for point in points]
    name = next(iter(points[0].settings), None)
    axes.grid(alpha=0.3)
    if name is None:
        axes.plot(*zip(*sorted(zip(costs, accuracies, strict=True)), strict=True), "o-", color="tab:blue")
        axes.set(xlabel=f"mean cost ({unit})", ylabel="accuracy (%)", title="Points that the rule found")
        return figure
    swept = [point.settings[name] for point in points]
    axes.plot(swept, accuracies, "o-", color="tab:blue")
    axes.set(xlabel=name, title=f"Sweep of the {name}")
    axes.set_ylabel("accuracy (%)", color="tab:blue")
    right = axes.twinx()
    right.plot(swept, costs, "s--", color="tab:red")
    right.set_ylabel(f"mean cost ({unit})", color="tab:red")
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

"""The figures of a calibration and of an evaluation by class. Needs matplotlib, the extra [plots]."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from pi_dynn.calibrate.records import (
    CalibrationRecord,
    ExitReliability,
    OperatingPoint,
    RuleResult,
    StaticNetwork,
)
from pi_dynn.evaluate.records import ClassResult
from pi_dynn.figures import BLUE, GREY, ORANGE, exits_figure, new_figure, styled
from pi_dynn.stats import wilson_interval
from pi_dynn.text import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCALE = {"macs": (1e-6, "million multiply-adds"), "s": (1e3, "ms"), "J": (1e3, "mJ")}
_MARKERS = "osD^vP*X"


@styled
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
    figure, (axes,) = new_figure(height=3.7)
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
            label=rule,
        )
    axes.axhline(100 * full.accuracy, color=GREY, lw=0.8, ls=":")
    if static:
        points = sorted((scale * network.cost, 100 * network.accuracy) for network in static)
        axes.plot(*zip(*points, strict=True), "k--s", lw=1, label="static networks")
        for network in static:
            axes.annotate(
                network.name, (scale * network.cost, 100 * network.accuracy), fontsize=7, ha="right", va="top"
            )
    place = (scale * chosen.mean_cost, 100 * chosen.accuracy)
    title = f"Chosen: {place[1]:.1f} % right at {percent(chosen.mean_cost / full.mean_cost, 0)} of full depth's cost"
    if images:
        low, high = wilson_interval(round(chosen.accuracy * images), images)
        error = [[place[1] - 100 * low], [100 * high - place[1]]]
        axes.errorbar(*place, yerr=error, color="black", lw=1, capsize=3, zorder=4)
        title += f"\nbar: its 95 % interval, of {images} images"
    axes.plot(*place, "k*", ms=11, zorder=5, label="chosen")
    axes.set(xlabel=f"mean cost ({unit})", ylabel="accuracy (%)", title=title)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def leaving_figure(record: CalibrationRecord, point: OperatingPoint) -> "Figure":
    """The share of images that leave at each exit, and of these the right ones."""
    right = [rate * (accuracy or 0.0) for rate, accuracy in zip(point.exit_rates, point.exit_accuracies, strict=True)]
    return exits_figure([f"block {block}" for block in record.exits], point.exit_rates, right)


@styled
def reliability_figure(rows: Sequence[ExitReliability]) -> "Figure":
    """How often an answer is right against its probability for each exit, before and after temperature scaling.

    The area of a mark grows with the number of its images.
    """
    columns = min(3, len(rows))
    figure, axes = new_figure(columns, 2.1 * columns, 2.3 * ceil(len(rows) / columns), ceil(len(rows) / columns))
    for place, row in zip(axes, rows, strict=False):
        place.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        images = max(1, *(one.count for one in row.bins_before))
        for bins, colour, name in ((row.bins_before, ORANGE, "before"), (row.bins_after, BLUE, "after")):
            x, y = ([getattr(one, key) for one in bins] for key in ("confidence", "accuracy"))
            place.plot(x, y, lw=0.9, color=colour)
            place.scatter(x, y, [4 + 60 * one.count / images for one in bins], color=colour, alpha=0.7, label=name)
        title = f"block {row.block_index}: off by\n{percent(row.error_before)}, then {percent(row.error_after)}"
        place.set(title=title, xlabel="probability", aspect="equal", xlim=(0, 1.02), ylim=(0, 1.02))
    for place in axes[::columns]:
        place.set_ylabel("share right")
    for place in axes[len(rows) :]:
        place.set_axis_off()
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, [f"{name} temperature scaling" for name in names], loc="outside lower center", ncols=2)
    return figure


@styled
def sweep_figure(points: Sequence[OperatingPoint], cost_unit: str) -> "Figure":
    """Accuracy and mean cost against the setting that was swept; for a rule that sweeps none, the points it found."""
    scale, unit = _SCALE[cost_unit]
    costs = [scale * point.mean_cost for point in points]
    accuracies = [100 * point.accuracy for point in points]
    name = next(iter(points[0].settings), None)
    if name is None:
        figure, (axes,) = new_figure()
        axes.plot(*zip(*sorted(zip(costs, accuracies, strict=True)), strict=True), "o-")
        axes.set(xlabel=f"mean cost ({unit})", ylabel="accuracy (%)", title="Points that the rule found")
        return figure
    figure, (above, below) = new_figure(rows=2, height=4.0)
    swept = [point.settings[name] for point in points]
    above.plot(swept, accuracies, "o-")
    above.set(ylabel="accuracy (%)", title=f"Sweep of the {name}")
    below.plot(swept, costs, "o-")
    below.set(xlabel=name, ylabel=f"mean cost\n({unit})", ylim=(0, None))
    below.sharex(above)
    return figure


@styled
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
    axes.set(xlabel="answer", ylabel="true class", title=f"{result.images:,} images of {Path(result.dataset).name}")
    axes.grid(visible=False)
    for k, row in enumerate(result.matrix):
        for other, images in enumerate(row):
            if images:
                colour = "white" if shares[k][other] > 55 else "black"
                axes.text(other, k, str(images), ha="center", va="center", fontsize=size, color=colour)
    figure.colorbar(picture, ax=axes, label="of the true class (%)", shrink=0.7)
    return figure

"""Losses of all stages by views seen, and what a linear probe says after each, as one picture. Needs [plots]."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pi_dynn.figures import COLOURS, new_figure, styled, write_figure

LOSSES = {
    "features": "distance to the features of EfficientNet-Lite0",
    "labels": "cross-entropy with the labels",
    "task": "distance to what lite0 answers",
}


@styled
def training_figure(log: Sequence[Mapping], batch_sizes: Mapping[str, int]):
    """The figure of a log of pretrain.py: a row a minute, and one with the probe after a stage of `batch_sizes`."""
    figure, (axes,) = new_figure(width=8.0)
    start = 0.0
    named = set()
    for stage in dict.fromkeys(row["stage"] for row in log):
        rows = [row for row in log if row["stage"] == stage]
        views = [start + row["step"] * batch_sizes[stage] / 1e3 for row in rows]
        for name, colour in zip(LOSSES, COLOURS):
            points = [(x, row[name]) for x, row in zip(views, rows, strict=True) if name in row]
            if points:
                label = None if name in named else LOSSES[name]
                axes.plot(*zip(*points, strict=True), color=colour, lw=1.2, label=label)
                named.add(name)
        probes = [row["probe_ucm_calibrate"] for row in rows if "probe_ucm_calibrate" in row]
        text = f"{stage}: probe {100 * probes[-1]:.1f} %" if probes else stage
        axes.text(start, 1.0, f" {text}", rotation=90, va="top", fontsize=7, transform=axes.get_xaxis_transform())
        start = max(views)
        axes.axvline(start, color="0.8", lw=1, zorder=0)
    axes.set(
        xlabel="thousand views seen",
        ylabel="loss",
        title="Training",
        xlim=(0, start),
        ylim=(0, 1.4 * axes.get_ylim()[1]),
    )
    axes.legend(loc="upper left", bbox_to_anchor=(0.1, 1.0))
    return figure


def save_training_curves(log: Sequence[Mapping], batch_sizes: Mapping[str, int], path: Path) -> None:
    """Write the figure of a log to `path`, as the kind its suffix says."""
    write_figure(training_figure(log, batch_sizes), path)

"""Losses by views seen, a panel for each stage, and what a linear probe says after it. Needs [plots]."""

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
    stages = list(dict.fromkeys(row["stage"] for row in log))
    figure, panels = new_figure(columns=len(stages), width=3.0 * len(stages))
    for stage, axes in zip(stages, panels, strict=True):
        rows = [row for row in log if row["stage"] == stage]
        for (name, text), colour in zip(LOSSES.items(), COLOURS):
            points = [(row["step"] * batch_sizes[stage] / 1e3, row[name]) for row in rows if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, lw=1.2, label=text)
        probes = [row["probe_ucm_calibrate"] for row in rows if "probe_ucm_calibrate" in row]
        title = f"{stage}: probe {100 * probes[-1]:.1f} %" if probes else stage
        axes.set(xlabel="thousand views seen", title=title, ylim=(0, None))
    panels[0].set_ylabel("loss")
    drawn = {line.get_label(): line for axes in panels for line in axes.lines}
    figure.legend(drawn.values(), drawn, loc="outside lower center", ncols=len(drawn))
    return figure


def save_training_curves(log: Sequence[Mapping], batch_sizes: Mapping[str, int], path: Path) -> None:
    """Write the figure of a log to `path`, as the kind its suffix says."""
    write_figure(training_figure(log, batch_sizes), path)

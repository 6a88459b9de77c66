#!/usr/bin/env python3
"""Accuracy against instructions and predicted milliseconds of the bundles that come along: a table and a figure.

    python benchmarks/arm/frontier.py DATASET --split calibration/ucm_split.json --plot docs/plots

Milliseconds of one thread are predicted from counts on emulated cores (docs/arm.md), with the mean error that is
printed. The full depth of EfficientNet-Lite0 in LiteRT or ONNX is what people would run instead, and marked as that.
The thresholds are swept on the images that are shown, so a curve says what exits can give; the star is the bundle's
own, chosen on other images.
"""

import json
from pathlib import Path

import click
import numpy as np
from instructions import BUDGETS, SHIPPED

from pi_dynn import Session, load_bundle
from pi_dynn.calibrate.outcomes import leave_at
from pi_dynn.cli.options import open_part
from pi_dynn.evaluate.outputs import collect_outputs
from pi_dynn.figures import COLOURS, GREY, new_figure, save_figure, styled
from pi_dynn.latency.boards import board_model, predict_exits
from pi_dynn.latency.emulated import count_exits
from pi_dynn.text import milliseconds, percent, table

BUNDLES = {  # name in the figure -> bundle, its form
    "Lite0, LiteRT": ("lite0", "litert"),
    "Lite0, ONNX": ("lite0", "onnx"),
    "Lite0, TorchScript": ("lite0", None),
    "GFNet, LiteRT": ("gfnet", "litert"),
    "GFNet, ONNX": ("gfnet", "onnx"),
    "GFNet, TorchScript": ("gfnet", None),
}
PEERS = ("Lite0, LiteRT", "Lite0, ONNX")  # at full depth: the same weights and images, without exits
STYLES = {"LiteRT": ":", "ONNX": "-", "TorchScript": "--"}
BOARDS = ("pi4", "pi5")
TITLES = {"pi4": "Raspberry Pi 4, Cortex-A72", "pi5": "Raspberry Pi 5, Cortex-A76"}
AXES = ("predicted milliseconds, one thread", "million instructions, one thread")
SWEPT = np.append(1 / (1 + np.exp(-np.linspace(-3, 10, 80))), 1.001)  # even in the logit: probabilities crowd at 1
RINGED = {"ms": 7, "mec": "black", "mew": 1.4}
BEYOND = 0.95  # of the best accuracy: points below are not drawn

# By name: milliseconds, millions of instructions, accuracy in percent; of own thresholds, of full depth, then swept.
Curves = dict[str, list[tuple[float, float, float]]]


@click.command()
@click.argument("dataset", type=click.Path(exists=True, path_type=Path))
@click.option("--split", type=click.Path(exists=True, path_type=Path))
@click.option("--part", default="test", show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), help="Folder for frontier.svg and frontier.png.")
@click.option("--record", is_flag=True, help="Write how many leave at each exit to budgets.json.")
def main(dataset: Path, split: Path | None, part: str, plot: Path | None, record: bool) -> None:
    """Print what each bundle comes to on each board; draw the curves."""
    data = open_part(dataset, split, part)
    curves: dict[str, Curves] = {board: {} for board in BOARDS}
    rows, errors, shares = [], {}, {}
    for name, (bundle_name, form) in BUNDLES.items():
        bundle = load_bundle(bundle_name, form=form)
        session = Session(bundle)
        outputs = collect_outputs(session, data)
        samples = np.arange(len(outputs.labels))
        accuracies, cells, instructions = [], {}, {}
        limits = [bundle.manifest.thresholds, session.forced_thresholds(session.exits)]
        taken = [leave_at(outputs.scores, thresholds) for thresholds in limits]
        if SHIPPED[bundle_name] == form:
            shares[bundle_name] = (np.bincount(taken[0], minlength=session.exits + 1) / len(samples)).tolist()
        for board in BOARDS:
            model = board_model(board)
            counts = count_exits(bundle, model.board.core, click.echo)
            predicted = predict_exits(model, counts, [1] * (session.exits + 1))
            errors[predicted.title] = predicted.mean_error
            exit_ms = np.array([1e3 * one.latency_s for one in predicted.exits])
            counted = np.array([one.counts["instructions"] for one in counts if one.engine == predicted.engine])
            instructions[board] = [counted[exits].mean() for exits in taken]
            points = []
            for thresholds in [*limits, *([float(value)] * session.exits for value in SWEPT)]:
                exits = leave_at(outputs.scores, thresholds)
                accuracy = 100 * float(outputs.right[exits, samples].mean())
                points.append((float(exit_ms[exits].mean()), float(counted[exits].mean()) / 1e6, accuracy))
            curves[board][name] = points
            cells[board] = points[:2]
            accuracies = [accuracy / 100 for *_, accuracy in points[:2]]
        for number, what in enumerate(("with exits", "full depth")):
            costs = [
                f"{instructions[board][number] / 1e6:.1f} M, {milliseconds(cells[board][number][0] / 1e3)}"
                for board in BOARDS
            ]
            rows.append((f"{name}, {what}", percent(accuracies[number]), *costs))
    click.echo(table(("bundle", "accuracy", "Raspberry Pi 4", "Raspberry Pi 5"), rows, markdown=True))
    if record:
        budgets = json.loads(BUDGETS.read_text()) | {"shares": shares}
        BUDGETS.write_text(json.dumps({"shipped": {}} | budgets, indent=1) + "\n")
    click.echo(", ".join(f"{title}: mean error of a prediction {percent(error)}" for title, error in errors.items()))
    if plot is not None:
        save_figure(frontier_figure(curves, len(samples)), plot, "frontier")


@styled
def frontier_figure(curves: dict[str, Curves], images: int):
    """Milliseconds above, instructions below, a column for each board: the curve of every bundle over its thresholds.

    A star for its own thresholds, a square for full depth.
    """
    figure, panels = new_figure(columns=len(curves), rows=len(AXES), width=7.6, height=6.2)
    for row, label in enumerate(AXES):
        for axes, (board, of_bundles) in zip(panels[row * len(curves) :], curves.items(), strict=False):
            for number, (name, found) in enumerate(of_bundles.items()):
                own, full, *swept = [(point[row], point[-1]) for point in found]
                best = max(accuracy for _, accuracy in swept)
                points = sorted({point for point in swept if point[1] >= BEYOND * best})
                style, colour = STYLES[name.split(", ")[1]], COLOURS[number]
                axes.plot(*zip(*points, strict=True), style, color=colour, label=name)
                axes.plot(*own, "*", ms=10, color=colour)
                axes.plot(*full, "s", color=colour, **(RINGED if name in PEERS else {}))
            axes.set(xlabel=label, title="" if row else TITLES[board], xlim=(0, None))
        panels[row * len(curves)].set_ylabel(f"accuracy on {images} images (%)")
    marks = {
        "the bundle's own thresholds": {"marker": "*", "ms": 10},
        "full depth": {"marker": "s"},
        "full depth, as others would run it": {"marker": "s", **RINGED},
    }
    for name, look in marks.items():
        panels[0].plot([], [], ls="none", color=GREY, label=name, **look)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure


if __name__ == "__main__":
    main()

"""The published study of a network with entropy exits, as tables and plots: accuracy and latency against cut-offs."""

from collections.abc import Sequence
from pathlib import Path

from pi_dynn.calibrate.records import OperatingPoint
from pi_dynn.files import write_atomically
from pi_dynn.text import milliseconds, percent, table


def points_table(
    points: Sequence[OperatingPoint], setting: str, markdown: bool = False, unreached: Sequence[float] = ()
) -> str:
    """One row per operating point, whose cost is latency: `setting`, accuracy, latency and who leaves where.

    Values of the setting which no point reaches, all greater than those of the points, follow and say so.
    """
    exits = len(points[0].exit_rates) if points else 0
    headers = (setting, "accuracy", "latency", *(f"exit {k + 1}" for k in range(exits)))
    rows = [
        (
            f"{point.settings[setting]:.3f}",
            percent(point.accuracy),
            milliseconds(point.mean_cost),
            *(percent(rate) for rate in point.exit_rates),
        )
        for point in points
    ]
    rows += [(f"{value:.3f}", "not reached", *[""] * (exits + 1)) for value in unreached]
    return table(headers, rows, markdown=markdown)


def save_plots(
    sweep: Sequence[OperatingPoint], desired: Sequence[OperatingPoint], sweep_path: Path, desired_path: Path
) -> None:
    """Draw the sweep over cut-offs (three panels) and the points for desired accuracies, each to a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    cutoffs, accuracies, latencies = ([], [], [])
    for point in sweep:
        cutoffs.append(point.settings["cutoff"])
        accuracies.append(100 * point.accuracy)
        latencies.append(1e3 * point.mean_cost)
    panels = [
        ("entropy cut-off (nats)", cutoffs, "accuracy (%)", accuracies),
        ("entropy cut-off (nats)", cutoffs, "latency (ms)", latencies),
        ("latency (ms)", latencies, "accuracy (%)", accuracies),
    ]
    for axes, (x_label, x, y_label, y) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.plot(x, y, marker=".")
        axes.set(xlabel=x_label, ylabel=y_label)
    _save(figure, sweep_path)

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    x, y = [1e3 * point.mean_cost for point in desired], [100 * point.accuracy for point in desired]
    axes.plot(x, y, marker="o", linestyle="")
    axes.margins(0.12)  # room for the labels
    labels: dict[tuple[float, float], list[str]] = {}  # points that coincide share one
    for point, place in zip(desired, zip(x, y, strict=True), strict=True):
        labels.setdefault(place, []).append(f"{point.settings['desired']:.2f}")
    for place, texts in labels.items():
        axes.annotate(", ".join(texts), place, xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel="latency (ms)", ylabel="accuracy (%)", title="per-exit thresholds for a desired accuracy")
    _save(figure, desired_path)


def _save(figure, path: Path) -> None:
    write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=120))

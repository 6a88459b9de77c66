"""The figures of a report, from saved runs. Needs matplotlib, the extra [plots].

Values that were not measured are drawn hollow or dashed, with their label.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, cycle
from typing import TYPE_CHECKING

from pi_dynn.energy.records import EnergyResult
from pi_dynn.energy.text import source
from pi_dynn.figures import new_figure
from pi_dynn.latency.records import Profile
from pi_dynn.report.saved import Answers, PowerTrace, SavedRuns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_POINTS = 4000  # of a trace: more cannot be distinguished on a page


def figures_of(runs: SavedRuns) -> dict[str, "Figure"]:
    """All figures that the runs have data for, by title."""
    figures: dict[str, Figure] = {}
    if any(result.net_j is not None and result.acc1 is not None for result in runs.energy):
        figures["Accuracy against energy"] = accuracy_energy_figure(runs.energy)
    for answers in runs.answers:
        if any(answers.latency_s.values()):
            figures[f"Latency by exit: {answers.name}"] = latency_figure(answers)
    for name, shares in exit_shares(runs).items():
        figures[f"Exits: {name}"] = exits_figure(shares)
    for trace in runs.traces:
        figures[f"Power: {trace.name}"] = trace_figure(trace)
    for profile in runs.profiles:
        figures[f"Cost by block: {profile.model} {profile.precision} {profile.engine}"] = cost_figure(profile)
    return figures


def accuracy_energy_figure(results: Sequence[EnergyResult]) -> "Figure":
    """Accuracy against net energy per image, with intervals; hollow points were not measured or are invalid."""
    figure, (axes,) = new_figure()
    colours = cycle(f"C{number}" for number in range(10))
    for result in results:
        if result.net_j is None or result.acc1 is None:
            continue
        energy_mj, colour = 1e3 * result.net_j, next(colours)
        low, high = result.net_ci95_j or (result.net_j, result.net_j)
        axes.errorbar(
            energy_mj,
            100 * result.acc1,
            xerr=[[energy_mj - 1e3 * low], [1e3 * high - energy_mj]],
            fmt="o",
            color=colour,
            markerfacecolor=colour if result.measured and result.valid else "none",
            label=result.name if result.measured and result.valid else f"{result.name} ({source(result)})",
        )
    axes.set(xlabel="net energy per image (mJ)", ylabel="accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def latency_figure(answers: Answers) -> "Figure":
    """Latency by the block left after: boxes to the quartiles, whiskers from the 1st to the 99th percentile."""
    figure, (axes,) = new_figure()
    latencies_of = {block: latencies for block, latencies in answers.latency_s.items() if latencies}
    axes.boxplot(
        [[1e3 * latency for latency in latencies] for latencies in latencies_of.values()],
        whis=(1, 99),
        tick_labels=[f"block {block}\nn {len(latencies)}" for block, latencies in latencies_of.items()],
    )
    axes.set(ylabel="latency of the network (ms)", ylim=(0, None))
    axes.grid(alpha=0.3, axis="y")
    return figure


def exit_shares(runs: SavedRuns) -> dict[str, dict[int, float]]:
    """The share of images by block, for every run with exits."""
    shares_of: dict[str, dict[int, float]] = {}
    for answers in runs.answers:
        counts = {block: len(latencies) for block, latencies in answers.latency_s.items()}
        shares_of[answers.name] = {block: count / max(1, sum(counts.values())) for block, count in counts.items()}
    for evaluation in runs.evaluations:
        shares_of[f"{evaluation.dataset}, evaluated"] = {row.block_index: row.rate for row in evaluation.exits}
    for result in runs.energy:
        shares_of[f"{result.name}, {result.dataset}"] = {row.block_index: row.share for row in result.exits}
    return {name: shares for name, shares in shares_of.items() if len(shares) > 1}


def exits_figure(shares: dict[int, float]) -> "Figure":
    """The share of images that leaves after each block."""
    figure, (axes,) = new_figure(height=3.2)
    bars = axes.bar([f"block {block}" for block in shares], [100 * share for share in shares.values()])
    axes.bar_label(bars, fmt="%.1f %%", fontsize=8)
    axes.set(ylabel="images (%)")
    axes.margins(y=0.15)
    return figure


def trace_figure(trace: PowerTrace) -> "Figure":
    """Power over time: trials marked, idle windows shaded."""
    figure, (axes,) = new_figure(width=9.0, height=3.6)
    step = max(1, len(trace.t_s) // MOST_POINTS)
    measured = trace.label == "MEASURED"
    axes.plot(trace.t_s[::step], trace.power_w[::step], lw=0.8, ls="-" if measured else "--", color="tab:blue")
    for number, (from_s, to_s) in enumerate(trace.idle):
        axes.axvspan(from_s, to_s, color="0.7", alpha=0.4, lw=0, label=None if number else "idle window")
    for number, (from_s, to_s) in enumerate(trace.trials):
        axes.axvspan(from_s, to_s, color="tab:orange", alpha=0.25, lw=0, label=None if number else "inferences")
    axes.set(xlabel="time (s)", ylabel="power (W)", ylim=(0, None))
    if not measured:
        axes.text(
            0.5, 0.5, trace.label, transform=axes.transAxes, ha="center", fontsize=28, color="tab:red", alpha=0.25
        )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def cost_figure(profile: Profile) -> "Figure":
    """Cumulative multiply-adds and time of a full answer by block."""
    figure, (axes,) = new_figure()
    time_s: defaultdict[int, float] = defaultdict(float)
    macs: defaultdict[int, int] = defaultdict(int)
    for step in profile.steps:
        number = -1 if step.block_index is None else step.block_index
        time_s[number] += step.per_hit_s
        macs[number] += step.macs
    numbers = sorted(time_s)
    axes.plot(numbers, [1e3 * sum_s for sum_s in accumulate(time_s[n] for n in numbers)], "o-", color="tab:blue")
    axes.set(xlabel="block (-1: before the first)")
    axes.set_ylabel("time so far (ms)", color="tab:blue")
    right = axes.twinx()
    right.plot(numbers, [count / 1e6 for count in accumulate(macs[n] for n in numbers)], "s--", color="tab:red")
    right.set_ylabel("multiply-adds so far (million)", color="tab:red")
    axes.grid(alpha=0.3)
    return figure

"""The figures of a report, from saved runs. Needs matplotlib, the extra [plots].

Values that were not measured are drawn hollow or dashed, with their label.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from pi_dynn.energy.records import EnergyResult
from pi_dynn.energy.text import source
from pi_dynn.figures import COLOURS, GREY, ORANGE, RED, exits_figure, new_figure, styled
from pi_dynn.latency.records import Profile
from pi_dynn.report.saved import Answers, PowerTrace, SavedRuns
from pi_dynn.text import mega, milliseconds

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
        figures[f"Exits: {name}"] = exits_figure([f"block {block}" for block in shares], list(shares.values()))
    for trace in runs.traces:
        figures[f"Power: {trace.name}"] = trace_figure(trace)
    for profile in runs.profiles:
        figures[f"Cost by block: {profile.model} {profile.precision} {profile.engine}"] = cost_figure(profile)
    return figures


@styled
def accuracy_energy_figure(results: Sequence[EnergyResult]) -> "Figure":
    """Accuracy against net energy per image, with intervals; hollow points were not measured or are invalid."""
    figure, (axes,) = new_figure()
    for number, result in enumerate(results):
        if result.net_j is None or result.acc1 is None:
            continue
        energy_mj, colour, good = 1e3 * result.net_j, COLOURS[number % len(COLOURS)], result.measured and result.valid
        low, high = result.net_ci95_j or (result.net_j, result.net_j)
        place, error = (energy_mj, 100 * result.acc1), [[energy_mj - 1e3 * low], [1e3 * high - energy_mj]]
        axes.errorbar(*place, xerr=error, fmt="o", color=colour, markerfacecolor=colour if good else "none")
        name = result.name if good else f"{result.name}\n({source(result)})"
        axes.annotate(name, place, (0, 7), textcoords="offset points", ha="center", fontsize=8, color=colour)
    axes.set(xlabel="net energy per image (mJ)", ylabel="accuracy (%)", title="Accuracy against energy")
    axes.margins(0.25)
    return figure


@styled
def latency_figure(answers: Answers) -> "Figure":
    """Latency by the block left after: boxes to the quartiles, whiskers from the 1st to the 99th percentile."""
    figure, (axes,) = new_figure()
    latencies_of = {block: latencies for block, latencies in answers.latency_s.items() if latencies}
    axes.boxplot(
        [[1e3 * latency for latency in latencies] for latencies in latencies_of.values()],
        whis=(1, 99),
        tick_labels=[f"block {block}\nn {len(latencies)}" for block, latencies in latencies_of.items()],
    )
    axes.set(ylabel="latency of the network (ms)", ylim=(0, None), title="Boxes: quartiles; whiskers: 1 to 99 %")
    axes.grid(axis="x", visible=False)
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


@styled
def trace_figure(trace: PowerTrace) -> "Figure":
    """Power over time: trials marked, idle windows shaded."""
    figure, (axes,) = new_figure(width=7.0, height=2.8)
    step = max(1, len(trace.t_s) // MOST_POINTS)
    measured = trace.label == "MEASURED"
    axes.plot(trace.t_s[::step], trace.power_w[::step], lw=0.8, ls="-" if measured else "--")
    for number, (from_s, to_s) in enumerate(trace.idle):
        axes.axvspan(from_s, to_s, color=GREY, alpha=0.25, lw=0, label=None if number else "idle window")
    for number, (from_s, to_s) in enumerate(trace.trials):
        axes.axvspan(from_s, to_s, color=ORANGE, alpha=0.3, lw=0, label=None if number else "inferences")
    axes.set(xlabel="time (s)", ylabel="power (W)", ylim=(0, None))
    if not measured:
        axes.text(0.5, 0.5, trace.label, transform=axes.transAxes, ha="center", fontsize=28, color=RED, alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def cost_figure(profile: Profile) -> "Figure":
    """Time and multiply-adds of a full answer up to each block, as shares of the whole."""
    figure, (axes,) = new_figure()
    time_s: defaultdict[int, float] = defaultdict(float)
    macs: defaultdict[int, int] = defaultdict(int)
    for step in profile.steps:
        number = -1 if step.block_index is None else step.block_index
        time_s[number] += step.per_hit_s
        macs[number] += step.macs
    numbers = sorted(time_s)
    for sums, style, name in ((time_s, "o-", "time"), (macs, "s--", "multiply-adds")):
        total = sum(sums.values()) or 1.0
        axes.plot(numbers, [100 * part / total for part in accumulate(sums[n] for n in numbers)], style, label=name)
    title = f"Full depth: {milliseconds(sum(time_s.values()))}, {mega(sum(macs.values()))} multiply-adds"
    axes.set(xlabel="after block (-1: before the first)", ylabel="done so far (%)", ylim=(0, 102), title=title)
    axes.legend()
    return figure

"""The results of `benchmark` and `profile`, and predicted latencies, as text and Markdown."""

from collections.abc import Sequence

from pi_dynn.latency.boards import BoardModel, unfit_reasons
from pi_dynn.latency.records import (
    BoardBenchmark,
    ColdStart,
    LatencyCheck,
    LatencyModel,
    LatencyRow,
    PredictedLatency,
    Profile,
    ProfileStep,
    Throughput,
)
from pi_dynn.text import cost_text, counted, mega, milliseconds, percent, significant, table

HEADERS = ("step", "hits", "per hit", "share", "mult-adds", "moved", "GMAC/s", "of roof")


def profile_table(profile: Profile, markdown: bool = False) -> str:
    """All steps in the order of a full answer, blocks with their filter and MLP, then the totals of each kind.

    Of a profile of the operations inside the steps, a row for each operation over all blocks.
    """
    named = [(operation_name(step) if step.operation else step_name(step), step) for step in profile.steps]
    rows = [_row(name, steps) for name, steps in _grouped(named).items()]
    for kind, steps in _grouped([(step.kind, step) for step in profile.steps]).items():
        if len({name for name, step in named if step.kind == kind}) > 1:
            rows.append(_row(f"{kind}, all", steps))
    rows.append(_row("all steps", profile.steps))
    return table(HEADERS, rows, markdown=markdown)


def step_name(step: ProfileStep) -> str:
    """The name of a step for people."""
    if step.block_index is None:
        return step.kind
    if step.kind in ("filter", "MLP"):
        return f"block {step.block_index} {step.kind}"
    if step.kind == "stage":
        return f"stage to block {step.block_index}"
    if step.kind == "block":
        return f"block {step.block_index}"
    if step.kind.startswith("final"):
        return step.kind
    return f"{step.kind.removeprefix('exit ')} after block {step.block_index}"


def operation_name(step: ProfileStep) -> str:
    """The name of an operation inside a step, the same for all blocks; stages differ, and keep their blocks."""
    return f"{step_name(step) if step.kind in ('stage', 'block') else step.kind}: {step.operation}"


def _grouped(named: Sequence[tuple[str, ProfileStep]]) -> dict[str, list[ProfileStep]]:
    groups: dict[str, list[ProfileStep]] = {}
    for name, step in named:
        groups.setdefault(name, []).append(step)
    return groups


def _row(name: str, steps: Sequence[ProfileStep]) -> tuple[str, ...]:
    """One line for one or several steps; a hit of several is one hit of each."""
    hits = sum(step.hits for step in steps)
    median_s = sum(step.per_hit_s * step.hits for step in steps)
    macs = sum(step.macs * step.hits for step in steps)
    moved = sum(step.moved_bytes * step.hits for step in steps)
    roof_s = sum((step.roof_s or 0.0) * step.hits for step in steps)
    several = len({(step.macs, step.moved_bytes) for step in steps}) > 1
    return (
        name,
        str(hits),
        f"{1e6 * median_s / hits:,.0f} us",
        percent(sum(step.share for step in steps)),
        "-" if several else mega(steps[0].macs),
        "-" if several else f"{moved / hits / 1e6:.2f} MB",
        significant(macs / median_s / 1e9) if median_s else "-",
        percent(roof_s / median_s, 0) if median_s and roof_s else "-",
    )


def profile_notes(profile: Profile) -> list[str]:
    """Notes on the table: what was profiled, the cost of the marks, and the roofline."""
    low, high = profile.disturbance_ci95
    lines = [
        f"{profile.model} {profile.precision} on {profile.engine}, {counted(profile.threads, 'thread')}, "
        f"{counted(profile.n, 'answer')}; median without marks {milliseconds(profile.latency_s)}",
        f"time with the marks over time without, in turns: {profile.disturbance:.3f} (95 % {low:.3f} .. {high:.3f})",
    ]
    if profile.roofline is not None:
        roof = profile.roofline
        cached = "" if roof.cache_bytes_per_s is None else f", {roof.cache_bytes_per_s / 1e9:.1f} from caches"
        lines.append(
            f"roof: {roof.fp32_macs_per_s / 1e9:.1f} GMAC/s fp32, {roof.int8_macs_per_s / 1e9:.1f} int8, "
            f"{roof.bytes_per_s / 1e9:.1f} GB/s from memory{cached} ({roof.source})"
        )
    return lines


def model_text(model: LatencyModel, blocks: Sequence[int]) -> str:
    """The terms of a latency model, and its prediction for each exit."""
    each = sum(model.block_s) / len(model.block_s)
    lines = [
        f"start {milliseconds(model.start_s)}, block {milliseconds(each)} (mean of {len(model.block_s)}), "
        f"exit check {milliseconds(model.check_s)}, last answer {milliseconds(model.last_s)}"
    ]
    leave = zip(blocks, model.predict_s(list(blocks)), strict=True)
    lines.append("leaving after block " + ", ".join(f"{block}: {milliseconds(s)}" for block, s in leave))
    return "\n".join(lines)


def check_table(check: LatencyCheck, markdown: bool = False) -> str:
    """Predicted and measured latency of each exit, then the mean over the images."""
    rows = [
        (f"block {block}", str(count), milliseconds(predicted), "-" if measured is None else milliseconds(measured), "")
        for (block, predicted, measured), count in zip(check.exits, check.exit_counts, strict=True)
    ]
    mean = (milliseconds(check.predicted_s), milliseconds(check.measured_s), f"{100 * check.error:+.1f} %")
    rows.append(("mean", str(sum(check.exit_counts)), *mean))
    return table(("leaving after", "images", "predicted", "measured", "error"), rows, markdown=markdown)


LATENCY_HEADERS = ("variant", "median", "95 % interval", "p90", "p99", "speed-up", "95 % interval")
COLD_HEADERS = ("cold start", "import", "read bundle", "engine, warm-up", "first answer", "in all", "peak memory")


def latency_table(rows: Sequence[LatencyRow], markdown: bool = False) -> str:
    """One line per variant; the speed-up is against the first."""
    cells = [
        (
            row.name,
            milliseconds(row.median_s),
            f"{milliseconds(row.ci95_s[0])} .. {milliseconds(row.ci95_s[1])}",
            milliseconds(row.p90_s),
            milliseconds(row.p99_s),
            f"{row.speedup:.2f}x",
            "-" if row.speedup_ci95 is None else f"{row.speedup_ci95[0]:.2f} .. {row.speedup_ci95[1]:.2f}",
        )
        for row in rows
    ]
    return table(LATENCY_HEADERS, cells, markdown=markdown)


def cold_start_table(starts: Sequence[ColdStart], markdown: bool = False) -> str:
    """One line per engine: how long a fresh process takes to its first answer, and the memory it needs."""
    cells = []
    for start in starts:
        parts = (start.import_s, start.read_s, start.ready_s, start.first_s)
        name, peak = f"{start.engine}, {counted(start.threads, 'thread')}", f"{start.peak_bytes / 1e6:.0f} MB"
        cells.append((name, *(milliseconds(part) for part in (*parts, sum(parts))), peak))
    return table(COLD_HEADERS, cells, markdown=markdown)


def throughput_table(results: Sequence[Throughput], markdown: bool = False) -> str:
    """One line per network: its batch, and the images a second."""
    rows = [
        (one.name, str(one.threads), str(one.batch_size), f"{one.images_per_s:,.1f}", str(one.batches))
        for one in results
    ]
    return table(("throughput", "threads", "batch", "images/s", "batches"), rows, markdown=markdown)


def predicted_table(predictions: Sequence[PredictedLatency], markdown: bool = False) -> str:
    """Share of full depth, milliseconds and energy of every exit on each board, then the mean over the images."""

    def cell(one: PredictedLatency, latency_s: float) -> str:
        share = percent(latency_s / one.exits[-1].latency_s, 0)
        return f"{share}, {milliseconds(latency_s)}, {cost_text(latency_s * one.net_power_w, 'J')}"

    rows = [
        (f"block {first.block_index}", str(first.images), *(cell(one, one.exits[k].latency_s) for one in predictions))
        for k, first in enumerate(predictions[0].exits)
    ]
    images = sum(one.images for one in predictions[0].exits)
    rows.append(("mean", str(images), *(cell(one, one.mean_s) for one in predictions)))
    titles = [f"{one.title} ({one.engine})" for one in predictions]
    return table(("leaving after", "images", *titles), rows, markdown=markdown)


def predicted_notes(predictions: Sequence[PredictedLatency]) -> list[str]:
    """What the predictions are, and how far they may be off."""
    lines = [
        "predicted from counts on emulated cores, one thread; this is no measurement; the energy, above idle, is by a "
        "quarter of what full load adds to the board's power"
    ]
    return lines + [
        f"{one.title}: published networks were predicted with a mean error of {percent(one.mean_error, 0)}, "
        f"{percent(one.worst_error, 0)} at worst"
        for one in predictions
    ]


def board_benchmark_text(benchmark: BoardBenchmark, markdown: bool = False) -> str:
    """The latencies, what they were measured with, and whether predictions can be fitted to them."""
    board = benchmark.before
    clock = "unknown" if board.frequency_max_hz is None else f"{board.frequency_max_hz / 1e6:.0f} MHz"
    versions = ", ".join(f"{name} {version}" for name, version in benchmark.versions.items())
    reasons = unfit_reasons(benchmark)
    lines = [
        latency_table(benchmark.rows, markdown),
        "",
        f"{benchmark.bundle} ({benchmark.bundle_sha256[:12]}), {', '.join(benchmark.engines)}; {versions}; "
        f"governor {board.governor or 'unknown'}, {clock}",
        *(f"of no use for predictions: {reason}" for reason in reasons),
        *([] if reasons else ["of use for predictions: benchmarks/arm/public_timings.py takes it in"]),
    ]
    return "\n".join(lines)


def board_model_text(model: BoardModel) -> str:
    """Cycles of each term, and the error of predicting each network from all others, in Markdown."""
    terms = " + ".join(f"({value:.3g} x {term})²" for term, value in model.cycles.items())
    rows = [(name, f"{100 * error:+.0f} %") for name, error in model.errors.items()]
    rows.append(("mean, worst", f"{percent(model.mean_error)}, {percent(model.worst_error)}"))
    lines = table(("predicted from all others", "error"), rows, markdown=True)
    return f"{model.board.title}: cycles² = {terms}\n\n{lines}"

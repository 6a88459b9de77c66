"""Energy in text and Markdown: the published columns, exits, notes, and the columns added to pytest-benchmark."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pi_dynn.energy.records import COMPARED_WITHIN, EnergyDifference, EnergyResult
from pi_dynn.errors import InputError
from pi_dynn.stats import LEAST_TRIALS
from pi_dynn.text import counted, milliseconds, percent, significant, table

DIGITS = 4  # significant, as the published tables have them
HEADERS = (
    "name",
    "params",
    "data set",
    "acc@1",
    "latency",
    "energy net",
    "95 % interval",
    "gross",
    "improve",
    "source",
)
EXIT_HEADERS = ("rate", "accuracy", "latency", "energy net", "95 % interval", "source")
_NOT_RESOLVED = "not resolved"


def energy_text(results: Sequence[EnergyResult], markdown: bool = False) -> str:
    """The tables, details and reasons of results, as printed on standard output."""
    tables = [energy_table(results, markdown), *(exit_table(result, markdown) for result in results)]
    lines = [power_lines(result) for result in results]
    lines += [f"INVALID {result.name}: {reason}" for result in results for reason in result.invalid_reasons]
    return "\n\n".join([*tables, "\n".join(lines)])


def energy_table(results: Sequence[EnergyResult], markdown: bool = False) -> str:
    """The published table, one line per result."""
    return table(HEADERS, [_row(result) for result in results], markdown=markdown)


def board_table(results: Sequence[EnergyResult], markdown: bool = False) -> str:
    """The published table with the board as the first column."""
    rows = [("-" if result.board is None else result.board.model, *_row(result)) for result in results]
    return table(("board", *HEADERS), rows, 2, markdown=markdown)


def _row(result: EnergyResult) -> tuple[str, ...]:
    return (
        result.name,
        "-" if result.parameters is None else f"{result.parameters / 1e6:.2f} M",
        result.dataset,
        "-" if result.acc1 is None else f"{100 * result.acc1:.3f}",
        milliseconds(result.latency_s, DIGITS),
        net_energy(result.net_j, result.net_ci95_j),
        interval(result.net_ci95_j),
        millijoules(result.gross_j),
        percent(result.improvement, 2),
        source(result),
    )


def exit_table(result: EnergyResult, markdown: bool = False) -> str:
    """Rate, accuracy, latency and energy of each exit."""
    rows = [
        (
            f"block {row.block_index}",
            percent(row.share),
            percent(row.accuracy),
            "-" if row.latency_s is None else milliseconds(row.latency_s, DIGITS),
            net_energy(row.net_j, row.net_ci95_j),
            interval(row.net_ci95_j),
            source(result),
        )
        for row in result.exits
    ]
    if result.exit_sum_j is not None:
        net = net_energy(result.exit_sum_j, result.exit_sum_ci95_j)
        rows.append(("share-weighted sum", "", "", "", net, interval(result.exit_sum_ci95_j), source(result)))
    lines: list[tuple[str, ...]] = [(f"exits of {result.name}", *EXIT_HEADERS), *rows]
    if all(row.net_j is None for row in result.exits):  # energies are measured with --each-exit
        lines = [(*line[:4], line[-1]) for line in lines]
    return table(lines[0], lines[1:], markdown=markdown)


def power_lines(result: EnergyResult) -> str:
    """Power, supply, throughput, sampling and uncertainty of a result."""
    board = "" if result.board is None else f"{result.board.model}, "
    lines = [
        f"{result.name}: {board}{result.precision} {result.engine}, {counted(result.threads, 'thread')}, "
        f"batch {result.batch_size}",
        f"  {marked(result.label, result.valid)}: idle {watts(result.idle_power_w)}  "
        f"active {watts(result.active_power_w)}  drift {drift(result.idle_drift_w_per_s)}",
        f"  FPS {result.images_per_s:.2f}  elapsed {milliseconds(result.elapsed_s, DIGITS)}  "
        f"forward {milliseconds(result.latency_s, DIGITS)}  n {result.n:,} x {counted(result.trials, 'trial')}",
        f"  {result.meter} ({result.scope}): {result.sample_rate_hz:.1f} samples/s, "
        f"largest gap {milliseconds(result.largest_gap_s, DIGITS)}{_supply(result)}",
    ]
    if result.net_expanded_j is not None:
        lines.append(
            f"  {result.label}: net {millijoules(result.net_j)} +- {millijoules(result.net_expanded_j)}, "
            f"gross {millijoules(result.gross_j)} +- {millijoules(result.gross_expanded_j)} "
            f"(k = 2; most of it from {_largest_parts(result)})"
        )
    if result.in_turns is not None:
        lines.append(f"  {result.in_turns.label}: {difference_line(result.in_turns)}")
    return "\n".join(lines)


def energy_log(results: Sequence[EnergyResult]) -> str:
    """The lines of the published logs for each result: power, images a second, whole time and time in the network.

    Source: zhaoweizhao/EdgeComputing, kan/8_CIFAR10_GPU.md. What is no valid measurement says so.
    """
    lines = []
    for result in results:
        label = "" if result.measured and result.valid else f" {marked(result.label, result.valid)}"
        idle, active = result.idle_power_w, result.active_power_w
        lines += [
            "power:unknown" if idle is None or active is None else f"power:{active:.1f}w-{idle:.1f}w{label}",
            f"FPS: {result.images_per_s}",
            f"elapsed_time_ms: {1e3 * result.elapsed_s}",
            f"Avg Forward Time per Image: {1e3 * result.latency_s} ms",
        ]
    return "\n".join(lines)


def _supply(result: EnergyResult) -> str:
    if result.idle_voltage_v is None or result.active_voltage_v is None or result.lowest_voltage_v is None:
        return ""
    return (
        f", {result.idle_voltage_v:.2f} V idle, {result.active_voltage_v:.2f} V active, "
        f"{result.lowest_voltage_v:.2f} V lowest"
    )


def _largest_parts(result: EnergyResult) -> str:
    parts = sorted(result.uncertainty, key=lambda part: part.net_j, reverse=True)
    return ", ".join(f"{part.source} {percent(part.net_j / abs(result.net_j or 1.0))}" for part in parts[:2])


def difference_line(difference: EnergyDifference) -> str:
    """A difference with its verdict in one line."""
    return (
        f"{difference.net_j * 1e3:+.4g} mJ against {difference.baseline}, 95 % interval "
        f"{interval(difference.net_ci95_j)}: {verdict(difference)}"
    )


def verdict(difference: EnergyDifference) -> str:
    """The verdict of a difference, with the reason if there is none."""
    reason = "" if difference.obstacle is None else f" ({difference.obstacle})"
    return difference.verdict + reason


def energy_notes(results: Sequence[EnergyResult]) -> list[str]:
    """Warnings about the figures, with what to do; one line each."""
    notes = []
    for result in results:
        if not result.measured:
            notes.append(f"{result.label}: {_NOT_MEASURED[result.label]}")
        if result.net_j is not None and result.net_ci95_j is None:
            notes.append(
                f"{result.name}: no interval with {counted(result.trials, 'trial')}: --trials 3 or more"
                if result.trials < LEAST_TRIALS
                else f"{result.name}: no interval, idle power was not measured between the trials: measure again"
            )
        elif result.net_j is not None and not result.resolved:
            enough = result.trials_to_resolve
            cure = f"about {enough:,} trials would resolve it" if enough and enough < _MOST_TRIALS else "measure longer"
            notes.append(
                f"{result.name}: net energy is not shown to be above zero, {interval(result.net_ci95_j)} mJ: "
                f"{cure}, and close other programs"
            )
        notes += result.notes
    return list(dict.fromkeys(notes))


def net_energy(energy_j: float | None, interval_j: Sequence[float] | None) -> str:
    """A net energy in millijoules; in words if its interval reaches zero, because the figure says nothing then."""
    return _NOT_RESOLVED if interval_j is not None and interval_j[0] <= 0 else millijoules(energy_j)


_MOST_TRIALS = 1000
_NOT_MEASURED = {
    "ESTIMATED": "no power meter was used, only a model of the processor: wire one up, see pi-dynn doctor",
    "SIMULATED": "no power meter was used: these figures show how the program works, not what a board draws",
}


def source(result: EnergyResult) -> str:
    """The source of a row's figures: the meter and its scope, or the label of what was not measured."""
    label = f"{result.meter}, {result.scope}" if result.measured else result.label
    return marked(label, result.valid)


def marked(label: str, valid: bool) -> str:
    """A label or source, with a mark if the figures are invalid."""
    return label if valid else f"{label} INVALID"


def millijoules(energy_j: float | None) -> str:
    """An energy in millijoules, four significant digits; a dash for None."""
    return "-" if energy_j is None else f"{significant(energy_j * 1e3, DIGITS)} mJ"


def interval(bounds_j: Sequence[float] | None) -> str:
    """An interval of energies in millijoules."""
    return "-" if bounds_j is None else " .. ".join(significant(bound * 1e3, DIGITS) for bound in bounds_j)


def watts(power_w: float | None) -> str:
    """A power in watts; a dash for None."""
    return "-" if power_w is None else f"{power_w:.3f} W"


def drift(drift_w_per_s: float | None) -> str:
    """A drift of idle power in milliwatts per second; a dash for None."""
    return "-" if drift_w_per_s is None else f"{drift_w_per_s * 1e3:+.2f} mW/s"


CALL_HEADERS = ("energy per call", "net", "95 % interval", "gross", "time", "idle", "active", "samples/s", "source")
_FIELD = {"net": "energy_mj_per_inference", "gross": "energy_gross_mj"}


def extra_info(result: EnergyResult) -> dict[str, Any]:
    """The fields saved with a benchmark, in `extra_info`."""
    return {
        "energy_mj_per_inference": _milli(result.net_j),
        "energy_ci95_mj": None if result.net_ci95_j is None else [_milli(bound) for bound in result.net_ci95_j],
        "energy_gross_mj": _milli(result.gross_j),
        "energy_resolved": result.resolved,
        "idle_power_w": result.idle_power_w,
        "active_power_w": result.active_power_w,
        "sample_rate_hz": result.sample_rate_hz,
        "largest_gap_s": result.largest_gap_s,
        "n_inferences": result.n,
        "trials": result.trials,
        **{name: getattr(result, name) for name in COMPARED_WITHIN},
        "measured": result.measured,
        "valid": result.valid,
        "invalid_reasons": list(result.invalid_reasons),
    }


def _milli(energy_j: float | None) -> float | None:
    return None if energy_j is None else energy_j * 1e3


def benchmark_table(results: Sequence[EnergyResult]) -> str:
    """One line per benchmark with energy, and the reasons of invalid ones."""
    rows = [
        (
            result.name,
            net_energy(result.net_j, result.net_ci95_j),
            interval(result.net_ci95_j),
            millijoules(result.gross_j),
            milliseconds(result.elapsed_s, DIGITS),
            watts(result.idle_power_w),
            watts(result.active_power_w),
            f"{result.sample_rate_hz:.1f}",
            source(result),
        )
        for result in results
    ]
    reasons = [f"INVALID {result.name}: {reason}" for result in results for reason in result.invalid_reasons]
    return "\n".join([table(CALL_HEADERS, rows), *reasons])


class EnergyLimit(NamedTuple):
    """The allowed rise of an energy: `share` of it, or `energy_mj` millijoules."""

    what: str
    share: float | None
    energy_mj: float | None

    def broken_by(self, now: Mapping[str, Any], before: Mapping[str, Any]) -> str | None:
        """Why the fields `now` break the limit against those of `before`; None if they do not.

        Energies that may not be compared, or of which one is missing, break it, too.
        """
        field = _FIELD[self.what]
        for name in COMPARED_WITHIN:
            if now.get(name) != before.get(name):
                return f"{name} differs, {now.get(name)!r} now and {before.get(name)!r} before: use the same meter"
        for when, fields in (("this run", now), ("the run before", before)):
            if not fields.get("valid") or fields.get(field) is None:
                return f"{when} has no valid {self.what} energy to compare: measure it again"
        limit_mj = before[field] + (self.energy_mj if self.share is None else self.share * abs(before[field]))
        if now[field] <= limit_mj:
            return None
        return f"{self.what} energy {now[field]:.4g} mJ, was {before[field]:.4g} mJ (limit {limit_mj:.4g} mJ)"


def parse_limit(text: str) -> EnergyLimit:
    """`net:10%`, `gross:5%`, or `net:0.5` for half a millijoule. Raises: InputError."""
    what, _, amount = text.partition(":")
    try:
        if what not in _FIELD:
            raise ValueError(what)
        value = float(amount.removesuffix("%"))
        if not value >= 0:
            raise ValueError(amount)
    except ValueError as error:
        raise InputError(f"{text!r} is no limit on energy: give net:10%, gross:5%, or net:0.5 in mJ") from error
    if amount.endswith("%"):
        return EnergyLimit(what, value / 100, None)
    return EnergyLimit(what, None, value)

"""Saved runs of every kind as tables, as rows for other programs, and compared with each other."""

from collections.abc import Iterable, Sequence

from pi_dynn.energy.records import EnergyDifference, EnergyResult
from pi_dynn.energy.text import board_table, exit_table, interval, marked, net_energy, verdict
from pi_dynn.evaluate.text import evaluation_text
from pi_dynn.latency.records import Profile, ProfileStep
from pi_dynn.latency.text import board_benchmark_text, cold_start_table, latency_table, profile_table
from pi_dynn.report.saved import Answers, SavedRuns, TestTiming, TrainingLog
from pi_dynn.stats import median, percentile
from pi_dynn.text import milliseconds, percent, significant, table

Grid = tuple[str, str]  # a title, and a table under it


def tables_of(runs: SavedRuns, differences: Sequence[EnergyDifference], markdown: bool, exits: bool) -> list[Grid]:
    """All tables that the runs have data for, with titles; those of the exits only if `exits`."""
    grids: list[Grid] = []
    if runs.energy:
        grids.append(("Energy and latency", board_table(runs.energy, markdown)))
    if differences:
        grids.append(("Against the first run", difference_table(differences, markdown)))
    if exits:
        grids += [
            (f"Exits of {_named(result)}", exit_table(result, markdown)) for result in runs.energy if result.exits
        ]
    grids += [(f"Accuracy on {result.dataset}", evaluation_text(result, markdown)) for result in runs.evaluations]
    grids += [(f"Answers of {answers.name}", answers_table(answers, markdown)) for answers in runs.answers]
    if runs.latencies:
        grids.append(("Latency", latency_table(runs.latencies, markdown)))
    grids += [(f"Latency on {one.before.model}", board_benchmark_text(one, markdown)) for one in runs.boards]
    if runs.cold_starts:
        grids.append(("Fresh processes", cold_start_table(runs.cold_starts, markdown)))
    grids += [
        (f"Steps of {profile.model} {profile.precision} on {profile.engine}", profile_table(profile, markdown))
        for profile in runs.profiles
    ]
    if runs.tests:
        grids.append(("Benchmarks", tests_table(runs.tests, markdown)))
    if runs.logs:
        grids.append(("Training", logs_table(runs.logs, markdown)))
    return grids


def _named(result: EnergyResult) -> str:
    """A run by its name, data set and board, since runs of several share a name."""
    return f"{result.name}, {result.dataset}" + ("" if result.board is None else f" on {result.board.model}")


def titled(grids: Sequence[Grid], markdown: bool) -> str:
    """The tables below one another, all but the first under their titles."""
    (_, first), *others = grids
    return "\n\n".join(
        [first, *(f"### {title}\n\n{text}" if markdown else f"{title}\n{text}" for title, text in others)]
    )


def json_objects(runs: SavedRuns, differences: Sequence[EnergyDifference]) -> list[dict[str, object]]:
    """Every record as plain data, energy results first; a difference under the key `difference`."""
    records = (
        *runs.energy,
        *runs.evaluations,
        *runs.latencies,
        *runs.boards,
        *runs.cold_starts,
        *runs.profiles,
        *runs.answers,
        *runs.tests,
        *runs.logs,
    )
    return [*(one.to_dict() for one in records), *({"difference": one.to_dict()} for one in differences)]


def difference_table(differences: Sequence[EnergyDifference], markdown: bool = False) -> str:
    """The energy of each run less that of its baseline, with interval and verdict."""
    rows = [
        (
            f"{one.name} against {one.baseline}",
            one.board or "-",
            one.dataset or "-",
            f"{significant(1e3 * one.net_j, 4)} mJ",
            interval(one.net_ci95_j),
            verdict(one),
            marked(one.label, one.valid),
        )
        for one in differences
    ]
    headers = ("energy per image", "board", "data set", "difference", "95 % interval", "verdict", "source")
    return table(headers, rows, 3, markdown=markdown)


def answers_table(answers: Answers, markdown: bool = False) -> str:
    """Images and latency by the block they left after."""
    rows = []
    for block, latencies in answers.latency_s.items():
        times = [milliseconds(f(latencies)) if latencies else "-" for f in (median, _p90, _p99)]
        share = percent(len(latencies) / max(1, answers.summary.images))
        rows.append((f"block {block}", str(len(latencies)), share, *times))
    return table(("leaves after", "images", "share", "median", "p90", "p99"), rows, markdown=markdown)


def _p90(values: Sequence[float]) -> float:
    return percentile(values, 90)


def _p99(values: Sequence[float]) -> float:
    return percentile(values, 99)


def tests_table(tests: Sequence[TestTiming], markdown: bool = False) -> str:
    """One line per benchmark of pytest, with the energy where there is one."""
    rows = [
        (
            one.name,
            str(one.rounds),
            milliseconds(one.median_s),
            milliseconds(one.iqr_s),
            net_energy(one.net_j, one.net_ci95_j),
            interval(one.net_ci95_j),
            "-" if one.label is None else marked(one.label, one.valid),
        )
        for one in tests
    ]
    headers = ("benchmark", "rounds", "median", "quartiles apart", "energy net", "95 % interval", "source")
    return table(headers, rows, markdown=markdown)


def logs_table(logs: Sequence[TrainingLog], markdown: bool = False) -> str:
    """One line per log of training: its best epoch."""
    rows = [(one.name, str(one.epochs), percent(one.best, 2), one.figure, str(one.best_epoch)) for one in logs]
    return table(("training log", "epochs", "best", "figure", "in epoch"), rows, markdown=markdown)


def csv_rows(runs: SavedRuns, differences: Sequence[EnergyDifference]) -> Iterable[dict[str, object]]:
    """One flat row per energy result, difference, evaluation, latency variant, step and benchmark; `kind` first."""
    steps = [_named_step(profile, step) for profile in runs.profiles for step in profile.steps]
    latencies = [*runs.latencies, *(row for one in runs.boards for row in one.rows)]
    records = (*runs.energy, *differences, *runs.evaluations, *latencies, *runs.cold_starts)
    for values in (*(one.to_dict() for one in records), *steps, *(one.to_dict() for one in (*runs.tests, *runs.logs))):
        yield _flat(values)


def _flat(values: dict[str, object]) -> dict[str, object]:
    """The plain values of a record; of an interval its ends, `net_ci95_low_j` and `net_ci95_high_j`."""
    row: dict[str, object] = {}
    for name, value in values.items():
        if "_ci95" in name:
            low, high = value if isinstance(value, list | tuple) else (None, None)
            row[name.replace("_ci95", "_ci95_low")], row[name.replace("_ci95", "_ci95_high")] = low, high
        elif name == "invalid_reasons":
            row[name] = "; ".join(map(str, value)) if isinstance(value, list) else value
        elif name != "schema" and not isinstance(value, list | dict | tuple):
            row[name] = value
    return row


def _named_step(profile: Profile, step: ProfileStep) -> dict[str, object]:
    values = {f"step_{name}" if name == "kind" else name: value for name, value in step.to_dict().items()}
    return {"kind": profile.KIND, "model": profile.model, "engine": profile.engine} | values

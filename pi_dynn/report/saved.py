"""Reading of saved runs of all commands: `energy --save`, the `--json` of the others, and the logs of training."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pi_dynn.classify.records import ClassifySummary, WatchSummary
from pi_dynn.energy.protocol import Measurement
from pi_dynn.energy.records import EnergyResult, EnergyRun
from pi_dynn.energy.runs import replay_run
from pi_dynn.errors import InputError
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.latency.records import BoardBenchmark, ColdStart, LatencyRow, Profile
from pi_dynn.power import Trace
from pi_dynn.records import Prediction, Record, kind_of, parsed_json


@dataclass(frozen=True)
class PowerTrace(Record):
    """Power over the time of a run, from its first sample on; `spans` are (from, to, label) in seconds.

    Shapes: t_s (N,), power_w (N,). `label` is MEASURED, ESTIMATED or SIMULATED.
    """

    name: str
    label: str
    t_s: list[float]
    power_w: list[float]
    idle: list[tuple[float, float]]
    trials: list[tuple[float, float]]


@dataclass(frozen=True)
class Answers(Record):
    """The answers of one `classify` run: the latency of each, by the block it left after."""

    KIND = "answers"

    name: str
    latency_s: dict[int, list[float]]
    summary: ClassifySummary


@dataclass(frozen=True)
class TestTiming(Record):
    """One benchmark of a pytest-benchmark run; energies are None if none was measured.

    The interval is None with fewer than three trials; `valid` is that of the energy.
    """

    KIND = "benchmark"
    __test__ = False  # pytest: not a test, whatever its name

    name: str
    rounds: int
    median_s: float
    iqr_s: float
    net_j: float | None = None
    label: str | None = None
    net_ci95_j: tuple[float, float] | None = None
    valid: bool = True
    invalid_reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingLog(Record):
    """The best epoch of a log of training: the greatest `figure`, such as "test_acc1", in 0..1."""

    KIND = "training log"

    name: str
    epochs: int
    best_epoch: int
    best: float
    figure: str


@dataclass(frozen=True)
class SavedRuns:
    """All records of some files, in their order."""

    energy: list[EnergyResult] = field(default_factory=list)
    traces: list[PowerTrace] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    latencies: list[LatencyRow] = field(default_factory=list)
    boards: list[BoardBenchmark] = field(default_factory=list)
    cold_starts: list[ColdStart] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    answers: list[Answers] = field(default_factory=list)
    tests: list[TestTiming] = field(default_factory=list)
    logs: list[TrainingLog] = field(default_factory=list)


_SUMMARIES = {record.KIND: record for record in (ClassifySummary, WatchSummary)}
_RECORDS: dict[str, tuple[type[Record], str]] = {  # kind: its class, and its field of SavedRuns
    Evaluation.KIND: (Evaluation, "evaluations"),
    LatencyRow.KIND: (LatencyRow, "latencies"),
    BoardBenchmark.KIND: (BoardBenchmark, "boards"),
    ColdStart.KIND: (ColdStart, "cold_starts"),
    Profile.KIND: (Profile, "profiles"),
}
_WRITERS = (
    "`energy --save`, `benchmark --save`, pytest-benchmark, --json of classify, evaluate, benchmark or profile, or a "
    "folder of `train`"
)
PUBLISHED_FIGURE = "test_acc1"  # percent, in the logs of RecNeXt, LSNet and others after DeiT: a JSON object an epoch
FIGURES = ("accuracy", "joint_accuracy", "gated_accuracy", "mean_accuracy")  # of log.csv, the one that counts first


def read_saved(paths: Iterable[str | Path]) -> SavedRuns:
    """The records of all files; figures of energy runs are computed again from their raw traces.

    Raises: InputError for a file that cannot be read, is damaged, or is not the output of a command.
    """
    runs = SavedRuns()
    for path in map(Path, paths):
        if path.is_dir():
            runs.logs.extend(_run_folder(path))
        else:
            _read(path, runs)
    return runs


def _read(path: Path, runs: SavedRuns) -> None:
    objects = _objects(path)
    try:
        if PUBLISHED_FIGURE in objects[0]:
            figures = [float(entry[PUBLISHED_FIGURE]) / 100 for entry in objects]
            epochs = [int(entry.get("epoch", number)) for number, entry in enumerate(objects)]
            runs.logs.append(_best_of(str(path), PUBLISHED_FIGURE, epochs, figures))
            return
        if "machine_info" in objects[0] and "benchmarks" in objects[0]:  # pytest-benchmark's own format
            runs.tests.extend([_test_timing(entry) for entry in objects[0]["benchmarks"]])
            if not objects[0]["benchmarks"]:
                raise InputError(f"{str(path)!r} holds no benchmark: run pytest --benchmark-only again")
            return
        before = _count(runs)
        latency_s: dict[int, list[float]] = {}
        for entry in objects:
            values = next(iter(entry.values())) if len(entry) == 1 else entry  # a record under a key of its own
            kind = kind_of(values)
            if kind == EnergyRun.KIND:
                measurement, results = replay_run(path)
                runs.energy.extend(results)
                runs.traces.append(power_trace(path.stem, measurement))
            elif kind == Prediction.KIND:
                latency_s.setdefault(values["block_index"], []).append(values["latency_s"])
            elif kind in _SUMMARIES:
                summary = _SUMMARIES[kind].from_dict(values)
                by_block = {block: latency_s.get(block, []) for block in summary.exit_blocks}
                runs.answers.append(Answers(path.stem, by_block, summary))
            elif kind in _RECORDS:
                record, records = _RECORDS[kind]
                getattr(runs, records).append(record.from_dict(values))
            elif "error" not in entry:
                what = f"a record of the kind {kind!r}" if kind else "no saved run"
                raise InputError(f"{str(path)!r} holds {what}: give a file of {_WRITERS}")
        if _count(runs) == before:
            raise InputError(f"{str(path)!r} ends before the summary of its answers: let `classify` finish")
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{str(path)!r} is damaged ({error!r}): run the command that wrote it again") from error


def _run_folder(folder: Path) -> list[TrainingLog]:
    """The log of every stage in a folder of `train`. Raises: InputError."""
    logs = []
    for path in sorted(folder.rglob("log.csv")):
        try:
            rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
            figure = next(name for name in FIGURES if name in rows[0])
            values = [float(row[figure]) for row in rows]
            epochs = [int(float(row["epoch"])) for row in rows]
        except (OSError, ValueError, KeyError, IndexError, StopIteration) as error:
            raise InputError(f"{str(path)!r} is no log of `train`, or damaged ({error!r}): train again") from error
        logs.append(_best_of(str(path.parent), figure, epochs, values))
    if not logs:
        raise InputError(f"{str(folder)!r} holds no log.csv: give a folder that `pi-dynn train` wrote, or a file")
    return logs


def _best_of(name: str, figure: str, epochs: list[int], values: list[float]) -> TrainingLog:
    place = int(np.argmax(values))
    return TrainingLog(name, len(values), epochs[place], values[place], figure)


def _count(runs: SavedRuns) -> int:
    return sum(len(records) for records in vars(runs).values())


def _objects(path: Path) -> list[dict[str, Any]]:
    """The JSON object in a file, or one object per line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError):
            raise InputError(f"cannot read the run {str(path)!r} ({error.strerror}): check the path") from error
        raise InputError(f"{path}: not text: give a run, a record or a log that was saved as JSON") from error
    try:
        objects = [parsed_json(text)]
    except ValueError:
        try:
            objects = [parsed_json(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise InputError(f"{str(path)!r} is not JSON ({error}): give a file of {_WRITERS}") from error
    if not objects or not all(isinstance(entry, dict) for entry in objects):
        raise InputError(f"{str(path)!r} holds no saved run: give a file of {_WRITERS}")
    return objects


def _test_timing(entry: dict[str, Any]) -> TestTiming:
    stats, extra = entry["stats"], entry.get("extra_info", {})
    net_mj, interval_mj = extra.get("energy_mj_per_inference"), extra.get("energy_ci95_mj")
    return TestTiming.from_dict(
        {
            "name": entry["name"],
            "rounds": stats["rounds"],
            "median_s": stats["median"],
            "iqr_s": stats["iqr"],
            "net_j": None if net_mj is None else net_mj / 1e3,
            "label": extra.get("label"),
            "net_ci95_j": None if interval_mj is None else [one / 1e3 for one in interval_mj],
            "valid": extra.get("valid", True),
            "invalid_reasons": extra.get("invalid_reasons", []),
        }
    )


def power_trace(name: str, measurement: Measurement) -> PowerTrace:
    """Power over time of a run; of an energy counter the difference quotient of its samples."""
    trace = measurement.trace
    t_s = (trace.t_ns - trace.t_ns[0]) * 1e-9
    if trace.power_w is not None:
        power_w = trace.power_w
    else:
        t_s, power_w = t_s[1:], np.diff(trace.values) / np.diff(t_s)
    recording = measurement.recording
    return PowerTrace(
        name=name,
        label=trace.info.label,
        t_s=t_s.tolist(),
        power_w=power_w.tolist(),
        idle=_spans(trace, recording.idle),
        trials=_spans(trace, [one.span for one in recording.trials if one.span is not None]),
    )


def _spans(trace: Trace, places: Iterable[int]) -> list[tuple[float, float]]:
    """Start and end of the spans at these indices, in seconds from the first sample."""
    start_ns = int(trace.t_ns[0])
    spans = [trace.spans[place] for place in places]
    return [((span.t0_ns - start_ns) * 1e-9, (span.t1_ns - start_ns) * 1e-9) for span in spans]

"""What the rooms hand each other: frozen records that turn into plain data and back. SI units throughout."""

from dataclasses import asdict, dataclass, fields
from typing import Any


class Record:
    """Mixin of the frozen dataclasses below: plain dicts out and in."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data, ready for JSON."""
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: dict[str, Any]):
        """The record from what `to_dict` gave; fields it does not know are ignored."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True)
class Prediction(Record):
    """One answer.

    `exit_index` counts the exits from zero, the last answer included; `block_index` is the block after which
    the image left. `score` is the gate value that let it leave, 1 for the last answer. `latency_s` covers the
    network alone; in a batch it is the batch's time shared equally. `top` lists the likeliest classes.
    """

    label: str
    class_index: int
    probability: float
    exit_index: int
    block_index: int
    score: float
    latency_s: float
    top: list[tuple[str, float]]


@dataclass(frozen=True)
class ExitRow(Record):
    """What one exit did in an evaluation: `accuracy` is None where no image left."""

    exit_index: int
    block_index: int
    count: int
    rate: float
    accuracy: float | None
    macs: int


@dataclass(frozen=True)
class ClassifySummary(Record):
    """The end of a `classify` run: counts, throughput over the wall clock, mean latency of the network."""

    images: int
    failed: int
    elapsed_s: float
    images_per_s: float
    mean_latency_s: float | None
    exit_counts: list[int]
    exit_blocks: list[int]
    engine: str
    threads: int
    bundle: str
    interrupted: bool


@dataclass(frozen=True)
class Evaluation(Record):
    """Accuracy of a bundle on labelled images at given thresholds. Accuracies and rates are in 0..1."""

    dataset: str
    images: int
    failed: int
    acc1: float
    acc5: float
    loss: float
    full_depth_acc1: float
    mean_macs: float
    full_depth_macs: int
    exits: list[ExitRow]
    thresholds: list[float]
    engine: str
    precision: str
    bundle: str

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Evaluation":
        return super().from_dict(values | {"exits": [ExitRow.from_dict(row) for row in values["exits"]]})


@dataclass(frozen=True)
class LatencyRow(Record):
    """Latency of one variant over `n` runs, interleaved with the others; `speedup` against the first row.

    `speedup` is a ratio of medians; rows saved before there was an interval of it have None.
    """

    name: str
    exits: str
    threads: int
    n: int
    median_s: float
    p90_s: float
    p99_s: float
    ci95_s: tuple[float, float]
    speedup: float
    mean_s: float | None = None
    speedup_ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class ColdStart(Record):
    """A fresh process up to its first answer: medians over `processes`, and the most memory any of them held.

    `import_s` loads the package and torch, `read_s` reads and verifies the bundle, `ready_s` chooses the engine
    and warms up every depth, `first_s` decodes and answers one photograph.
    """

    engine: str
    threads: int
    processes: int
    import_s: float
    read_s: float
    ready_s: float
    first_s: float
    peak_bytes: int


@dataclass(frozen=True)
class Finding(Record):
    """One thing `doctor` looked at; `problem` and `cure` are None where all is well."""

    topic: str
    name: str
    value: str
    problem: str | None = None
    cure: str | None = None

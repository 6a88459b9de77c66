"""Records of benchmarks, profiles, latency models and predictions. SI units throughout."""

from dataclasses import dataclass, field
from typing import Any

from pi_dynn.board import BoardSnapshot
from pi_dynn.records import Record

FULL_DEPTH = "none taken"  # `exits` of a LatencyRow


@dataclass(frozen=True)
class LatencyRow(Record):
    """Latency of one variant over `n` runs, interleaved with the others; `speedup` against the first row.

    `speedup` is a ratio of medians; its interval is None in old files. `block_index` is the block after which every
    answer left, None if they left at several, and for the full depth in files of 0.1.
    """

    KIND = "latency"

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
    block_index: int | None = None

    @classmethod
    def from_dict(cls, values: Any) -> "LatencyRow":
        """The inverse of `to_dict`. Rows of release 0.1 have the block in the name only, counted from one."""
        if isinstance(values, dict) and "block_index" not in values:
            name, _, number = str(values.get("name")).rpartition(", block ")
            if number.isdecimal() and name:
                block = int(number) - 1
                values = values | {"name": f"{name}, block {block}", "block_index": block}
        return super().from_dict(values)


@dataclass(frozen=True)
class BoardBenchmark(Record):
    """Latencies of a bundle on a board, which it describes before and after; `benchmark --save` writes it for others.

    Raises: ValueError without rows.
    """

    KIND = "board benchmark"

    bundle: str
    bundle_sha256: str
    image_size: int
    engines: list[str]
    versions: dict[str, str]
    before: BoardSnapshot
    after: BoardSnapshot
    rows: list[LatencyRow]

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("there are no rows")

    @property
    def full_depth_s(self) -> float | None:
        """The least median at full depth on one thread, the engine's that is fastest there; None without one."""
        return min((row.median_s for row in self.rows if row.exits == FULL_DEPTH and row.threads == 1), default=None)


@dataclass(frozen=True)
class ColdStart(Record):
    """A fresh process up to its first answer: medians over `processes`, and their greatest memory use.

    `import_s` loads the package and torch, `read_s` reads and verifies the bundle, `ready_s` chooses the engine
    and warms up every depth, `first_s` decodes and answers one photograph.
    """

    KIND = "cold start"

    engine: str
    threads: int
    processes: int
    import_s: float
    read_s: float
    ready_s: float
    first_s: float
    peak_bytes: int


@dataclass(frozen=True)
class Throughput(Record):
    """Images a second of a network, in `batches` batches of `batch_size` that took `timed_s` in all."""

    KIND = "throughput"

    name: str
    threads: int
    batch_size: int
    images_per_s: float
    batches: int
    timed_s: float


@dataclass(frozen=True)
class ProfileStep(Record):
    """One step of the network over all answers: run in `hits` of them, for `total_s` in all.

    `per_hit_s` is the median, so that one interruption does not count, and `share` is that of hits times median
    in all steps. `macs` are the multiply-adds of one hit,
    `int8_macs` those of them in int8; `moved_bytes` is what its operators read and write, weights included.
    `roof_s` is the least time for a hit by the machine's roofline, None without one. `operation` is the one inside
    the step that the figures are of, None for the whole step.

    Raises: ValueError for a step without hits.
    """

    kind: str
    block_index: int | None
    hits: int
    total_s: float
    per_hit_s: float
    share: float
    macs: int
    int8_macs: int
    moved_bytes: int
    roof_s: float | None
    operation: str | None = None

    def __post_init__(self) -> None:
        if self.hits < 1:
            raise ValueError(f"hits are {self.hits}, and have to be at least 1")


CACHED_BYTES = 4 << 20
"""What a step moves may have stayed in the caches if it is no more than this."""


@dataclass(frozen=True)
class Roofline(Record):
    """The peak performance of a machine on `threads` threads: multiply-adds per second, and bytes per second.

    `bytes_per_s` is that of memory, `cache_bytes_per_s` that of what stays in the caches, None in records of before.
    `source` says whether they were timed or are from the core's data sheet.
    """

    fp32_macs_per_s: float
    int8_macs_per_s: float
    bytes_per_s: float
    threads: int
    source: str
    cache_bytes_per_s: float | None = None

    def least_s(self, fp32_macs: float, int8_macs: float, moved_bytes: float) -> float:
        """The least time for so much work: the greater of computing it and of moving it, from caches if it fits."""
        computing_s = fp32_macs / self.fp32_macs_per_s + int8_macs / self.int8_macs_per_s
        bytes_per_s = self.bytes_per_s
        if self.cache_bytes_per_s is not None and moved_bytes <= CACHED_BYTES:
            bytes_per_s = max(bytes_per_s, self.cache_bytes_per_s)
        return max(computing_s, moved_bytes / bytes_per_s)


@dataclass(frozen=True)
class Profile(Record):
    """The time of `n` answers by step, in the order of an answer at full depth.

    `disturbance` is the time with marks over the time without, the median of pairs in alternating order, and
    `disturbance_ci95` its interval. `latency_s` is the median answer without marks.

    Raises: ValueError without steps.
    """

    KIND = "profile"

    model: str
    bundle: str
    precision: str
    engine: str
    threads: int
    n: int
    latency_s: float
    disturbance: float
    disturbance_ci95: tuple[float, float]
    exit_counts: list[int]
    blocks: list[int]
    steps: list[ProfileStep]
    roofline: Roofline | None

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("there are no steps")


@dataclass(frozen=True)
class LatencyModel(Record):
    """Latency on one machine as a sum: a start, blocks, exit checks, and the last answer instead of a check.

    `block_s` has one value per block. `bundle`, `engine`, `threads`, `torch` and `machine` say what it is for.
    """

    KIND = "latency model"

    start_s: float
    block_s: list[float]
    check_s: float
    last_s: float
    bundle: str
    engine: str
    threads: int
    torch: str
    machine: str

    def predict_s(self, blocks: list[int]) -> list[float]:
        """The latency of leaving after each of `blocks` (rising), with all exits before it checked.

        The last of `blocks` is the final answer if it is the network's last block.
        """
        latencies_s = []
        for checks, block in enumerate(blocks, start=1):
            is_last = block == len(self.block_s) - 1
            done_s = self.start_s + sum(self.block_s[: block + 1])
            latencies_s.append(done_s + (checks - is_last) * self.check_s + is_last * self.last_s)
        return latencies_s


@dataclass(frozen=True)
class LatencyCheck(Record):
    """A latency model compared with measurements it was not fitted to: the natural mix of exits over images.

    `exits` has, per exit, the block before it, the predicted and the measured latency (None if no image left).
    `error` is predicted over measured mean, less one.
    """

    KIND = "latency check"

    exits: list[tuple[int, float, float | None]]
    exit_counts: list[int]
    predicted_s: float
    measured_s: float
    error: float


@dataclass(frozen=True)
class Board(Record):
    """A board whose latency is predicted: its core, at the clock the timings were published at, and the model's terms.

    `core` is QEMU's name; `terms` are names of counts.
    """

    name: str
    title: str
    core: str
    clock_hz: float
    terms: list[str]


@dataclass(frozen=True)
class TimedNetwork(Record):
    """A network with its published time on one thread by board, and what an answer takes by core and term."""

    name: str
    image_size: int
    measured_s: dict[str, float]
    counts: dict[str, dict[str, int]]


@dataclass(frozen=True)
class BoardTimings(Record):
    """What predictions are fitted to. `source` says where the times are from, `runtime` what was counted.

    `pretrained` has counts of networks that `learn` may choose, at full depth in static int8, by form,
    "name@image size", core and term.
    """

    KIND = "board timings"

    source: str
    runtime: str
    boards: list[Board]
    networks: list[TimedNetwork]
    pretrained: dict[str, dict[str, dict[str, dict[str, int]]]] = field(default_factory=dict)


@dataclass(frozen=True)
class ExitCounts(Record):
    """What an answer takes on an emulated core on `engine` where it leaves after `block_index`, by term."""

    engine: str
    exit_index: int
    block_index: int
    counts: dict[str, int]


@dataclass(frozen=True)
class PredictedExit(Record):
    """The predicted latency of leaving after a block, and how many images of those given leave there."""

    exit_index: int
    block_index: int
    images: int
    latency_s: float


@dataclass(frozen=True)
class PredictedLatency(Record):
    """Latency on a board that was not measured, on one thread; the last of `exits` is full depth.

    `mean_s` is over the images given. The errors are shares, of predicting published networks from the others.
    `net_power_w` is what one busy core adds to the board's idle power by a model, so that times `mean_s` is the energy
    of an answer above idle.
    """

    KIND = "predicted latency"

    board: str
    title: str
    engine: str
    exits: list[PredictedExit]
    mean_s: float
    mean_error: float
    worst_error: float
    net_power_w: float

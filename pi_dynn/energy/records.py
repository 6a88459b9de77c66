"""What an energy measurement leaves behind: what was done (the recording), and what it cost (the results).

SI units throughout; shares and accuracies are in 0..1.
"""

from dataclasses import dataclass, field
from typing import Any

from pi_dynn.board import BoardSnapshot
from pi_dynn.power.trace import Trace, with_column_names
from pi_dynn.records import Record


@dataclass(frozen=True)
class Subject(Record):
    """What was measured: a bundle on an engine, over images; of a function, only its name is known.

    `blocks` are those after which images leave, the last answer included; `parameters` is None where the
    bundle does not tell; `bundle` is the hash of the file.
    """

    name: str
    model: str = ""
    precision: str = ""
    engine: str = ""
    threads: int = 0
    batch_size: int = 1
    bundle: str = ""
    dataset: str = ""
    parameters: int | None = None
    blocks: list[int] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class TimedPass(Record):
    """One pass of `n` answers, out of `planned_n`, by subject number `subject`.

    `forced_exit` is the exit everyone left at, None for the natural mix. `span` is the place of its span among the
    trace's, None where no sampler ran; `label` is what people call it. `forward_s` is the time within the network,
    `elapsed_s` all of it. Lists have one entry per exit: answers, time within the network, right answers (None
    without labels).
    """

    subject: int
    forced_exit: int | None
    label: str
    planned_n: int
    n: int
    elapsed_s: float
    forward_s: float
    exit_counts: list[int]
    exit_forward_s: list[float]
    exit_right: list[int] | None
    span: int | None = None


@dataclass(frozen=True)
class EnergyRecording(Record):
    """What was done while the meter was sampled. With two subjects the first is the baseline.

    `idle` are the places of the idle windows among the trace's spans, in the order in which they were measured.
    `board` and `board_after` are None where nobody looked.
    """

    subjects: list[Subject]
    latency: list[TimedPass]
    trials: list[TimedPass]
    planned_trials: int
    board: BoardSnapshot | None
    board_after: BoardSnapshot | None
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    idle: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class EnergyExit(Record):
    """One exit in the natural mix; `net_j` only where everyone was also forced out here."""

    exit_index: int
    block_index: int
    share: float
    accuracy: float | None
    latency_s: float | None
    net_j: float | None
    net_ci95_j: tuple[float, float] | None


@dataclass(frozen=True)
class EnergyResult(Record):
    """What one inference of one subject cost.

    Energies are per inference: `gross_j` is everything the board drew, `net_j` what it drew above idle. Both
    are medians over trials with 95 % intervals, None where the run broke off before they could be known.
    `latency_s` is the mean time within the network without the sampler, `elapsed_s` the mean time per image.
    `resolved` says whether the net energy stands out of its uncertainty. `exit_sum_j` is the net energy of the
    exits, each measured forced and weighted by its share. `improvement` is the share of the baseline's
    net energy that is saved. `label` is MEASURED, ESTIMATED or SIMULATED.
    """

    KIND = "energy"

    name: str
    model: str
    parameters: int | None
    dataset: str
    acc1: float | None
    latency_s: float
    elapsed_s: float
    images_per_s: float
    net_j: float | None
    net_ci95_j: tuple[float, float] | None
    net_sd_j: float | None
    resolved: bool
    gross_j: float | None
    gross_ci95_j: tuple[float, float] | None
    idle_power_w: float | None
    idle_sd_w: float | None
    idle_drift_w_per_s: float | None
    active_power_w: float | None
    n: int
    trials: int
    trial_s: float | None
    sample_rate_hz: float
    largest_gap_s: float
    samples: int
    duplicates: int
    stale_reads: int
    retries: int
    clipped: int
    valid: bool
    invalid_reasons: list[str]
    exits: list[EnergyExit]
    exit_sum_j: float | None
    exit_sum_ci95_j: tuple[float, float] | None
    improvement: float | None
    improvement_ci95: tuple[float, float] | None
    measured: bool
    label: str
    meter: str
    scope: str
    rails: list[str]
    shunt_ohm: float | None
    gain: float
    board: BoardSnapshot | None
    board_after: BoardSnapshot | None
    bundle: str
    precision: str
    engine: str
    threads: int
    batch_size: int
    thresholds: list[float]
    notes: list[str]


@dataclass(frozen=True)
class EnergyDifference(Record):
    """What `name` costs more than `baseline`, per image; `net_ci95_j` holds the true difference in 95 % of cases.

    `verdict` is "less", "more", or "no difference shown".
    """

    KIND = "difference"

    name: str
    baseline: str
    net_j: float
    net_ci95_j: tuple[float, float]
    verdict: str


@dataclass(frozen=True)
class EnergyRun(Record):
    """A saved run. The results are for other programs to read: here they are worked out anew from the other two."""

    KIND = "energy run"

    results: list[dict[str, Any]]
    recording: EnergyRecording
    trace: Trace
    format: str = "pi_dynn.energy/1"  # the name by which version 0.1 knows such a file

    @classmethod
    def from_dict(cls, values: Any) -> "EnergyRun":
        """The inverse of `to_dict`; raises as any record does."""
        if isinstance(values, dict):
            values = values | {"trace": with_column_names(values.get("trace"))}
        return super().from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; the trace in it may be cut out and used on its own."""
        return super().to_dict() | {"trace": self.trace.to_dict()}

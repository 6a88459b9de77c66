"""Records of an energy measurement: the recording (what was done) and the results (its energy).

SI units throughout; shares and accuracies are in 0..1.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from pi_dynn.board import BoardSnapshot
from pi_dynn.power.trace import Trace, with_column_names
from pi_dynn.records import Record

COMPARED_WITHIN = ("label", "meter", "scope", "rails", "shunt_ohm", "gain")
"""What two energies have in common that may be compared."""


@dataclass(frozen=True)
class Subject(Record):
    """What was measured: a bundle on an engine, over images; of a function only the name.

    `blocks` are those after which images leave, the last answer included; `parameters` is None if the bundle does
    not contain it; `bundle` is the hash of the file.
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

    `forced_exit` is the exit that all images left at, None for the natural mix. `span` is the index of its span in
    the trace, None without a sampler; `label` is its name for people. `forward_s` is the time within the network,
    `elapsed_s` the whole time. Lists have one entry per exit: answers, time within the network, right answers (None
    without labels); `right` are the right answers of all exits where those of each are unknown.
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
    right: int | None = None

    @property
    def acc1(self) -> float | None:
        """The share of right answers, in 0..1; None if it is unknown."""
        right = self.right if self.exit_right is None else sum(self.exit_right)
        return None if right is None else right / self.n


@dataclass(frozen=True)
class EnergyRecording(Record):
    """What was done while the meter was sampled. With two subjects the first is the baseline.

    `idle` are the indices of the idle windows in the trace's spans, in the order in which they were measured,
    `settling_s` the seconds waited before each until power was steady; `peak_a` is the largest current of the work
    in the fastest conversions of the meter, None if it gives none.
    `board` and `board_after` are None if there was no snapshot.
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
    settling_s: list[float] = field(default_factory=list)
    peak_a: float | None = None


@dataclass(frozen=True)
class EnergyExit(Record):
    """One exit in the natural mix; `net_j` is None unless trials with all images forced to this exit were run."""

    exit_index: int
    block_index: int
    share: float
    accuracy: float | None
    latency_s: float | None
    net_j: float | None
    net_ci95_j: tuple[float, float] | None


@dataclass(frozen=True)
class UncertaintyPart(Record):
    """One part of the uncertainty budget, as standard uncertainties per inference in joules.

    `kind` is "A", evaluated from the trials, or "B", from anything else (BIPM GUM, 2.3.2 and 2.3.3).
    """

    source: str
    kind: Literal["A", "B"]
    net_j: float
    gross_j: float


@dataclass(frozen=True)
class EnergyDifference(Record):
    """The net energy of `name` less that of `baseline`, per image; `net_ci95_j` is the 95 % confidence interval.

    `verdict` is "less", "more", "no difference shown", or "no verdict" with the reason in `obstacle`. `expanded_j`
    adds what the meter may be wrong (k = 2), None if that is unknown. `label` is that of the less real of the two.
    `board` and `dataset` are those of `name`; "" in records of earlier releases.
    """

    KIND = "difference"

    name: str
    baseline: str
    net_j: float
    net_ci95_j: tuple[float, float] | None
    verdict: str
    expanded_j: float | None = None
    label: str = ""
    valid: bool = True
    obstacle: str | None = None
    board: str = ""
    dataset: str = ""


@dataclass(frozen=True)
class EnergyResult(Record):
    """The energy of one inference of one subject.

    Energies are per inference: `gross_j` is all that the board drew, `net_j` the part above idle power. Both
    are means over trials with 95 % intervals of Student's t; None if the run ended before they were known, the
    intervals also with fewer than three trials. `net_se_j` is the standard error of the mean, `uncertainty` the
    budget, `net_expanded_j` and `gross_expanded_j` the expanded uncertainties (k = 2), None if the accuracy
    of the meter is unknown. `resolved` says whether the net energy is shown to be above zero; `trials_to_resolve` is
    how many trials that would take.
    `latency_s` is the mean time within the network without the sampler, `elapsed_s` the mean time per image,
    `slowdown` the share by which sampling made the trials longer, None without a pass to compare with.
    `exit_sum_j` is the net energy of the exits, each measured forced and weighted by its share. `improvement` is the
    share of the baseline's net energy that is saved, `in_turns` the difference, if both were measured in turns.
    Voltages are means over idle windows and trials, and the lowest sample in any of them; `peak_a` is the largest
    current. `label` is MEASURED, ESTIMATED or SIMULATED.
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
    resolved: bool
    gross_j: float | None
    gross_ci95_j: tuple[float, float] | None
    idle_power_w: float | None
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
    # New in 0.3; a record of before has none of them.
    net_se_j: float | None = None
    net_expanded_j: float | None = None
    trials_to_resolve: int | None = None
    gross_expanded_j: float | None = None
    uncertainty: list[UncertaintyPart] = field(default_factory=list)
    idle_range_w: float | None = None
    idle_voltage_v: float | None = None
    active_voltage_v: float | None = None
    lowest_voltage_v: float | None = None
    peak_a: float | None = None
    settling_s: float | None = None
    slowdown: float | None = None
    in_turns: EnergyDifference | None = None


@dataclass(frozen=True)
class EnergyRun(Record):
    """A saved run. The results are for other programs; pi_dynn computes them again from the recording and trace."""

    KIND = "energy run"

    results: list[dict[str, Any]]
    recording: EnergyRecording
    trace: Trace
    format: str = "pi_dynn.energy/1"  # the name by which version 0.1 knows such a file

    @classmethod
    def from_dict(cls, values: Any) -> "EnergyRun":
        """The inverse of `to_dict`. Raises: as `Record.from_dict`."""
        if isinstance(values, dict):
            values = values | {"trace": with_column_names(values.get("trace"))}
        return super().from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """The run as plain data; its `trace` is itself a valid saved trace."""
        return super().to_dict() | {"trace": self.trace.to_dict()}

"""What saved files say, ready to be tabled and drawn. SI units; shares and accuracies are in 0..1."""

from dataclasses import dataclass, field

from pi_dynn.energy_records import EnergyResult
from pi_dynn.profile_records import Profile
from pi_dynn.records import ClassifySummary, ColdStart, Evaluation, LatencyRow, Record


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

    name: str
    latency_s: dict[int, list[float]]
    summary: ClassifySummary


@dataclass(frozen=True)
class TestTiming(Record):
    """One benchmark of a pytest-benchmark run; energies are None where none was measured."""

    __test__ = False  # pytest: not a test, whatever its name

    name: str
    rounds: int
    median_s: float
    iqr_s: float
    net_j: float | None = None
    label: str | None = None


@dataclass(frozen=True)
class EnergyDifference(Record):
    """What `name` costs more than `baseline`, per image; `net_ci95_j` holds the true difference in 95 % of cases.

    `verdict` is "less", "more", or "no difference shown".
    """

    name: str
    baseline: str
    net_j: float
    net_ci95_j: tuple[float, float]
    verdict: str


@dataclass(frozen=True)
class SavedRuns:
    """Everything some files held, in the order they were given."""

    energy: list[EnergyResult] = field(default_factory=list)
    traces: list[PowerTrace] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    latencies: list[LatencyRow] = field(default_factory=list)
    cold_starts: list[ColdStart] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    answers: list[Answers] = field(default_factory=list)
    tests: list[TestTiming] = field(default_factory=list)

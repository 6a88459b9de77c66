"""What a calibration leaves behind: thresholds, what they gave, and for which bundle and images.

Accuracies, rates and shares are in 0..1; costs are in the unit named beside them. Shape letters: K exits
including the last answer.
"""

from dataclasses import dataclass, field
from typing import Any

from pi_dynn.records import Record

SCHEMA = "pi_dynn.calibration/1"


@dataclass(frozen=True)
class OperatingPoint(Record):
    """Thresholds (K - 1) and what they give on some images.

    `exit_rates` and `exit_accuracies` have one value per exit (K); an exit nobody leaves at has no accuracy.
    `settings` says how the thresholds came about, such as the common threshold of a sweep.
    """

    thresholds: list[float]
    accuracy: float
    mean_cost: float
    exit_rates: list[float]
    exit_accuracies: list[float | None]
    settings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Promise(Record):
    """What risk control promises: with probability 1 - delta at most epsilon of accuracy is lost on new data.

    `risk` says what is counted: "harm" (images that full depth has right and the exits wrong) or "gap" (the
    difference of the two accuracies). `bound` is the upper confidence bound the chosen thresholds reached.
    """

    epsilon: float
    delta: float
    risk: str
    corrected: bool
    bound: float


@dataclass(frozen=True)
class CalibrationRecord(Record):
    """Thresholds chosen on held-out images, frozen with everything needed to use and to judge them.

    `exits` are the blocks images leave after, the last answer included; `costs` (K) are in `cost_unit`, one of
    "macs", "s" and "J". `curve` holds the best points found from cheap to dear. `bundle` is the hash of the
    bundle file, `split` the hash of the split file and `part` the part of it that was used.
    """

    rule: str
    score: str
    thresholds: list[float]
    exits: list[int]
    exit_rates: list[float]
    accuracy: float
    full_depth_accuracy: float
    mean_cost: float
    costs: list[float]
    cost_unit: str
    images: int
    bundle: str
    dataset: str
    split: str | None
    part: str | None
    settings: dict[str, Any]
    curve: list[OperatingPoint]
    temperatures: list[float] | None = None
    promise: Promise | None = None
    schema: str = SCHEMA

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CalibrationRecord":
        """The record with its curve and promise from what `to_dict` gave. Raises KeyError for one without a curve."""
        promise = values.get("promise")
        parts = {
            "curve": [OperatingPoint.from_dict(point) for point in values["curve"]],
            "promise": None if promise is None else Promise.from_dict(promise),
        }
        return super().from_dict(values | parts)


@dataclass(frozen=True)
class RuleResult(Record):
    """One rule's thresholds on images that had no part in choosing them; costs in `cost_unit`.

    `gain` is the accuracy beyond that of the common threshold which costs the same on these images.
    """

    rule: str
    setting: str
    point: OperatingPoint
    cost_unit: str
    gain: float

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RuleResult":
        return super().from_dict(values | {"point": OperatingPoint.from_dict(values["point"])})


@dataclass(frozen=True)
class ReliabilityBin(Record):
    """Images of like confidence: how sure the exit was of them on average, and how often it was right."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class ExitReliability(Record):
    """How honest one exit's probabilities are, before and after dividing its logits by `temperature`."""

    block_index: int
    temperature: float
    error_before: float
    error_after: float
    bins_before: list[ReliabilityBin]
    bins_after: list[ReliabilityBin]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ExitReliability":
        bins = {name: [ReliabilityBin.from_dict(one) for one in values[name]] for name in ("bins_before", "bins_after")}
        return super().from_dict(values | bins)


@dataclass(frozen=True)
class StaticNetwork(Record):
    """A network without exits, for comparison at its own full depth."""

    name: str
    accuracy: float
    cost: float

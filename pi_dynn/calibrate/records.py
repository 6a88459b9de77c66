"""Records of a calibration: thresholds, their figures, and the bundle and images they are for.

Accuracies, rates and shares are in 0..1; costs are in the unit named beside them. Shape letters: K exits
including the last answer.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pi_dynn.errors import CalibrationError
from pi_dynn.files import write_text
from pi_dynn.records import Record, file_kind, read_record


@dataclass(frozen=True)
class ExitRow(Record):
    """One exit in an evaluation; `accuracy` is None if no image left there."""

    exit_index: int
    block_index: int
    count: int
    rate: float
    accuracy: float | None
    macs: int


@dataclass(frozen=True)
class OperatingPoint(Record):
    """Thresholds (K - 1) and their figures on some images.

    `exit_rates` and `exit_accuracies` have one value per exit (K); the accuracy is None if no image leaves.
    `settings` holds the parameters of the rule, such as the common threshold of a sweep.
    """

    thresholds: list[float]
    accuracy: float
    mean_cost: float
    exit_rates: list[float]
    exit_accuracies: list[float | None]
    settings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Promise(Record):
    """The guarantee of risk control: with probability 1 - delta at most epsilon of accuracy is lost on new data.

    `risk` says what is counted: "harm" (images that full depth has right and the exits wrong) or "gap" (the
    difference of the two accuracies). `bound` is the upper confidence bound of the chosen thresholds.
    """

    epsilon: float
    delta: float
    risk: str
    corrected: bool
    bound: float


@dataclass(frozen=True)
class CalibrationRecord(Record):
    """Thresholds chosen on held-out images, with everything needed to use and to judge them.

    `exits` are the blocks images leave after, the last answer included; `costs` (K) are in `cost_unit`, one of
    "macs", "s" and "J", and come from `cost_source`. `curve` holds the best points found from cheap to dear. `bundle`
    is the hash of the bundle file, `split` the hash of the split file and `part` the part of it that was used.
    """

    KIND = "calibration record"
    SCHEMA = "pi_dynn.calibration/1"

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
    cost_source: str = ""


@dataclass(frozen=True)
class RuleResult(Record):
    """One rule's thresholds, evaluated on images that were not used to choose them; costs in `cost_unit`.

    `gain` is the accuracy beyond that of the common threshold which costs the same on these images.
    """

    KIND = "rule comparison"

    rule: str
    setting: str
    point: OperatingPoint
    cost_unit: str
    gain: float


@dataclass(frozen=True)
class ReliabilityBin(Record):
    """One bin of a reliability diagram: mean confidence, accuracy and number of its images."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class ExitReliability(Record):
    """The calibration error and reliability bins of one exit, before and after dividing its logits by `temperature`."""

    block_index: int
    temperature: float
    error_before: float
    error_after: float
    bins_before: list[ReliabilityBin]
    bins_after: list[ReliabilityBin]


@dataclass(frozen=True)
class StaticNetwork(Record):
    """A network without exits, for comparison at its own full depth."""

    name: str
    accuracy: float
    cost: float


def save_record(path: str | Path, record: CalibrationRecord) -> None:
    """Write a record as JSON; what was there survives a crash."""
    write_text(path, json.dumps(record.to_dict(), indent=1, allow_nan=False) + "\n")


def load_record(path: str | Path) -> CalibrationRecord:
    """The record in a file. Raises: CalibrationError if there is none, or it is of another kind or damaged."""
    record = read_record(CalibrationRecord, path, CalibrationError, "make one with `pi-dynn calibrate`")
    if len(record.thresholds) != len(record.exits) - 1 or len(record.costs) != len(record.exits):
        raise CalibrationError(f"{path}: thresholds, exits and costs do not fit together; calibrate again")
    return record


def check_bundle(record: CalibrationRecord, sha256: str, name: str | Path) -> None:
    """Refuse a record made for another bundle. Raises: CalibrationError."""
    if record.bundle != sha256:
        raise CalibrationError(
            f"{name}: was made for the bundle {record.bundle[:12]}, and this one is {sha256[:12]}: "
            "calibrate this bundle, or use the other with --bundle"
        )


def best_within(
    records: Sequence[CalibrationRecord], budget: float, unit: str
) -> tuple[CalibrationRecord, OperatingPoint]:
    """The most accurate point of all curves that costs at most `budget` in `unit`, and its record.

    Raises: CalibrationError if no record has costs in that unit, or none is that cheap.
    """
    curves = [(record, point) for record in records if record.cost_unit == unit for point in record.curve]
    if not curves:
        raise CalibrationError(
            f"no calibration record of this bundle has its costs in {unit!r}: calibrate with measured costs (--costs)"
        )
    fitting = [(record, point) for record, point in curves if point.mean_cost <= budget]
    if not fitting:
        least = min(point.mean_cost for _, point in curves)
        raise CalibrationError(f"a budget of {budget:g} {unit} is below the least on record, {least:g}: allow more")
    return max(fitting, key=lambda pair: (pair[1].accuracy, -pair[1].mean_cost))


def find_records(place: str | Path, sha256: str) -> list[CalibrationRecord]:
    """Records of a bundle: the one in a file, or all those in a folder that were made for it.

    Raises: CalibrationError if there is none.
    """
    place = Path(place)
    if not place.is_dir():
        record = load_record(place)
        check_bundle(record, sha256, place)
        return [record]
    records = [load_record(path) for path in sorted(place.glob("*.json")) if file_kind(path) == CalibrationRecord.KIND]
    records = [record for record in records if record.bundle == sha256]
    if not records:
        raise CalibrationError(
            f"{place}: no record for the bundle {sha256[:12]}; make one with `pi-dynn calibrate DATASET -o RECORD`"
        )
    return records

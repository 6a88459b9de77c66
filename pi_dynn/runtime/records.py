"""What a bundle file says about itself, read without torch. Accuracies are in 0..1, multiply-adds are counts."""

from dataclasses import dataclass, field
from typing import Any

from pi_dynn.records import Record


@dataclass(frozen=True)
class ExitInfo(Record):
    """One exit of a bundle, the last answer included, whose `threshold` is None; `macs` is the cost to leave there."""

    exit_index: int
    block_index: int
    threshold: float | None
    macs: int


@dataclass(frozen=True)
class TrainingStage(Record):
    """One stage of training: its name, how often it was run in a row, and the data sets it saw."""

    stage: str
    runs: int
    data: list[str]


@dataclass(frozen=True)
class CalibrationInfo(Record):
    """A calibration record made for a bundle: its file, and what it expects; the mean cost is in `cost_unit`."""

    file: str
    rule: str
    score: str
    accuracy: float
    mean_cost: float
    cost_unit: str
    images: int
    dataset: str


@dataclass(frozen=True)
class BundleInfo(Record):
    """What is known of a bundle without running it.

    `rejection` is the share of images of its classes that is at most answered "none of these" on average; None for a
    bundle that always answers with a class. `sha256` is that of the file, which names the bundle in other records.
    `parameters` and `licence` are None where the bundle does not say; `notes` are those of the manifest without a
    field here.
    """

    KIND = "bundle"

    file: str
    size_bytes: int
    sha256: str
    format: str
    precision: str
    packed_engine: str | None
    model: str
    parameters: int | None
    depth: int
    preprocess: dict[str, Any]
    labels: list[str]
    exits: list[ExitInfo]
    training: list[TrainingStage]
    rejection: float | None
    licence: str | None
    calibration: list[CalibrationInfo]
    pi_dynn_version: str
    torch_version: str
    notes: dict[str, Any] = field(default_factory=dict)

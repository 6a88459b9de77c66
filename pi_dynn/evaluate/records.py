"""Records of evaluations: on clean, corrupted or naturally hard images.

Accuracies, errors and shares are in 0..1. Shape letters: K exits including the last answer.
"""

from dataclasses import dataclass

from pi_dynn.calibrate.records import ExitRow
from pi_dynn.records import Record


@dataclass(frozen=True)
class Evaluation(Record):
    """Accuracy of a bundle on labelled images at given thresholds. Accuracies and rates are in 0..1.

    `rejected` is the share answered with "none of these", None for a bundle that rejects nothing; accuracies count the
    nearest class of such images, too.

    Raises: ValueError for a full depth without multiply-adds.
    """

    KIND = "evaluation"

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
    rejected: float | None = None

    def __post_init__(self) -> None:
        if self.full_depth_macs <= 0:
            raise ValueError(f"full_depth_macs is {self.full_depth_macs}, and has to be positive")


@dataclass(frozen=True)
class ClassRow(Record):
    """One class of an evaluation: how many images are of it, and how many of those are answered right.

    `precision` is the share of the answers "this class" that are right. `taken_for` is the class its wrong answers name
    most often, `taken_count` times. `rejected` of its images are answered "none of these". What has nothing to be
    counted on is None.
    """

    label: str
    images: int
    right: int
    accuracy: float | None
    precision: float | None
    taken_for: str | None
    taken_count: int
    rejected: int | None = None


@dataclass(frozen=True)
class WrongImage(Record):
    """An image answered wrong: its file, the two classes, the probability of the answer, and the exit that gave it."""

    path: str
    label: str
    answer: str
    probability: float
    exit_index: int
    block_index: int


@dataclass(frozen=True)
class ClassResult(Record):
    """An evaluation class by class: `matrix` counts images by true class (rows) and answer (columns), C x C.

    `wrong` has the surest wrong answers first.
    """

    KIND = "class result"

    dataset: str
    images: int
    labels: list[str]
    matrix: list[list[int]]
    classes: list[ClassRow]
    wrong: list[WrongImage]
    thresholds: list[float]
    bundle: str


@dataclass(frozen=True)
class ConditionResult(Record):
    """One corruption at one severity (both None for clean images) at the thresholds in use.

    `mean_depth` is the mean number of blocks run. `p_value` tests these exit shares (K) against those of clean
    images; None without clean images.
    """

    corruption: str | None
    severity: int | None
    images: int
    failed: int
    acc1: float
    full_depth_acc1: float
    mean_macs: float
    mean_depth: float
    exit_rates: list[float]
    p_value: float | None


@dataclass(frozen=True)
class CorruptionSummary(Record):
    """Mean corruption errors over severities, then over corruptions, with exits and at full depth.

    `beyond_clean` are the mean errors less the clean error. `relative` divides each corruption's error by AlexNet's,
    which is the published mCE; None unless these are all the published images of ImageNet-C.
    """

    errors: dict[str, float]
    mean_error: float
    full_depth_mean_error: float
    beyond_clean: float | None
    full_depth_beyond_clean: float | None
    relative: float | None
    full_depth_relative: float | None


@dataclass(frozen=True)
class RobustnessResult(Record):
    """All conditions, and their summary if corruptions are among them."""

    KIND = "robustness"

    dataset: str
    layout: str | None
    thresholds: list[float]
    exits: list[int]
    conditions: list[ConditionResult]
    summary: CorruptionSummary | None
    bundle: str

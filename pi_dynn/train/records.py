"""The plan and the result of a training job. Plain records, SI units."""

from dataclasses import dataclass, field
from typing import Any

from pi_dynn.calibrate.records import OperatingPoint
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.records import Record

LEAST_TO_CHOOSE = 50  # images exits are chosen by: fewer tell nothing of a harm of a few points
TOLERATED_LOSS = 0.001  # share of the calibration part that leaving early may spoil


@dataclass(frozen=True)
class TrainPlan(Record):
    """The plan of a job. `parts` counts images per part; the times are measured on a few real steps, or None."""

    KIND = "training plan"

    stage: str
    model: str
    parameters: int
    trained_parameters: int
    classes: int
    image_size: int
    parts: dict[str, int]
    steps_per_epoch: int
    recipes: dict[str, dict[str, Any]]
    processes: int
    device: str
    step_s: float | None = None
    waited_share: float | None = None
    estimated_s: float | None = None


@dataclass(frozen=True)
class TrainResult(Record):
    """The result of a training job. Accuracies in 0..1, None without a test part; `depth_accuracies` per exit block."""

    KIND = "training result"

    stage: str
    epochs: int
    best_epoch: int
    accuracy: float
    test_accuracy: float | None
    weights: str
    bundle: str | None = None
    exit_blocks: list[int] = field(default_factory=list)
    threshold: float | None = None
    depth_accuracies: dict[str, float] = field(default_factory=dict)
    evaluation: Evaluation | None = None


@dataclass(frozen=True)
class LearnPlan(Record):
    """How `learn` means to fit its time: `how` is "whole" (all of the network) or "heads"; times in seconds.

    `step_s` is a training step and `image_s` one image answered, as measured on this machine; `reason` says in words
    why it is done this way. `short` says that the time is short even for that.
    """

    KIND = "learn plan"

    model: str
    image_size: int
    how: str
    epochs: int
    batch_size: int
    step_s: float
    image_s: float
    estimated_s: float
    reason: str
    short: bool = False


@dataclass(frozen=True)
class ClassAccuracy(Record):
    """One class on the test part: its images, how many were answered right, the 95 % interval of that share."""

    name: str
    images: int
    right: int
    interval: tuple[float, float]


@dataclass(frozen=True)
class Answer(Record):
    """The answer for one test image: paths relative to the folder, classes as indices, `exit_index` from 0."""

    path: str
    label: int
    answer: int
    probability: float
    exit_index: int


@dataclass(frozen=True)
class BoardLatency(Record):
    """Predicted latency on a board, one thread of `runtime`: at full depth, and the mean over the test images.

    The mean goes by multiply-adds, with an allowance for the first layers. `worst_error` is a share: how far a
    published network was off, predicted from the others.
    """

    title: str
    full_depth_s: float
    mean_s: float
    worst_error: float
    runtime: str = "TorchScript"


@dataclass(frozen=True)
class LearnResult(Record):
    """What `learn` made, and how good it is on images that took no part in making it.

    Accuracies and shares in 0..1. `exits_cost` is what leaving early loses there against the last answer,
    `int8_agreement` the share of calibration images on which the bundle's last answer is that of fp32. `unfinished`
    says why training ended before its plan did. `curve` are points of accuracy and mean cost on the test part, from
    cheap to dear. `predicted` are boards for which the latency is predicted. `page` is empty if none was made.
    """

    KIND = "learn result"

    bundle: str
    weights: str
    page: str
    card: str
    split: str
    folder: str
    plan: LearnPlan
    source: str
    seed: int
    classes: list[str]
    parts: dict[str, int]
    left_out: int
    epochs: int
    kept: str
    any_way_up: bool
    chosen_accuracy: dict[str, float]
    precision: str
    precision_reason: str | None
    int8_agreement: float | None
    exit_blocks: list[int]
    thresholds: list[float]
    score: str
    evaluation: Evaluation
    interval: tuple[float, float]
    exits_cost: float
    per_class: list[ClassAccuracy]
    confusion: list[list[int]]
    answers: list[Answer]
    curve: list[OperatingPoint]
    advice: list[str]
    took_s: float
    unfinished: str | None = None
    predicted: list[BoardLatency] = field(default_factory=list)

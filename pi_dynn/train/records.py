"""The plan and the result of a training job. Plain records, SI units."""

from dataclasses import dataclass, field
from typing import Any

from pi_dynn.evaluate.records import Evaluation
from pi_dynn.records import Record


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

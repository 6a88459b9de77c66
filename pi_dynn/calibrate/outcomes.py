"""Scores, correctness and cost of every exit on held-out images: the arrays that all rules work on.

Shape letters: K exits including the last answer, N samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pi_dynn.calibrate.records import ExitRow, OperatingPoint
from pi_dynn.errors import CalibrationError
from pi_dynn.records import NEVER

Values = Sequence[float] | NDArray[np.float64]


def between(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Thresholds midway between scores `lower`, which do not reach them, and `upper`, which do.

    A device may compute a score with another rounding error, so no threshold equals an observed score.
    """
    middle = (lower + upper) / 2
    return np.where(middle > lower, middle, upper)  # two neighbouring numbers have no middle


def threshold_for(scores: NDArray[np.float64], leaving: int) -> float:
    """The threshold that the `leaving` greatest scores (N,) reach, and those equal to the least of them."""
    if leaving == 0:
        return NEVER
    least = np.partition(scores, -leaving)[-leaving]
    staying = scores[scores < least]
    return float(between(staying.max(), least)) if len(staying) else 0.0


@dataclass(frozen=True)
class ExitOutcomes:
    """Scores (K, N), whether each exit is right (K, N), and the cumulative cost of leaving there (K,).

    Scores are 0 or more, and higher is surer; the last row is ignored. `groups` (N,) numbers the photograph that
    each image is a view of, if there are several views of one; without it all images are independent.

    Raises: CalibrationError for shapes that do not fit, no early exit, no image, NaN scores, or costs that are
    not positive and rising.
    """

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    costs: NDArray[np.float64]
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", np.asarray(self.scores, dtype=np.float64))
        object.__setattr__(self, "right", np.asarray(self.right, dtype=bool))
        object.__setattr__(self, "costs", np.asarray(self.costs, dtype=np.float64))
        if self.scores.ndim != 2 or self.scores.shape != self.right.shape or len(self.costs) != len(self.scores):
            raise CalibrationError(
                f"scores {self.scores.shape}, answers {self.right.shape} and {self.costs.size} costs do not fit "
                "together: give (exits, images) of both and one cost for each exit"
            )
        if len(self.group_of) != self.images:
            raise CalibrationError(f"{len(self.group_of)} groups do not fit {self.images} images: give one for each")
        if len(self.scores) < 2:
            raise CalibrationError("the network has no early exit, so there is no threshold to choose")
        if self.images == 0:
            raise CalibrationError("there are no images to calibrate on")
        broken = np.isnan(self.scores[:-1]).sum(axis=1)
        if broken.any():
            exit_number = int(broken.argmax()) + 1
            raise CalibrationError(
                f"{broken.max()} of {self.images} scores of exit {exit_number} are NaN: the network or its inputs "
                "are broken"
            )
        if not np.isfinite(self.costs).all() or self.costs[0] <= 0 or (np.diff(self.costs) < 0).any():
            raise CalibrationError(
                f"the costs of the exits, {self.costs.tolist()}, must be positive and rise with depth: measure again"
            )

    @property
    def images(self) -> int:
        """N."""
        return int(self.scores.shape[1])

    @property
    def photographs(self) -> int:
        """The number of different photographs; views of one are not independent."""
        return len(np.unique(self.group_of))

    @property
    def group_of(self) -> NDArray[np.int64]:
        """The number of the photograph that each image is a view of, (N,)."""
        return np.arange(self.images) if self.groups is None else np.asarray(self.groups)

    @property
    def early_exits(self) -> int:
        """K - 1."""
        return len(self.scores) - 1

    @property
    def full_depth_accuracy(self) -> float:
        """Accuracy without early exits."""
        return float(self.right[-1].mean())

    def subset(self, samples: NDArray[np.int64] | NDArray[np.bool_]) -> "ExitOutcomes":
        """The outcomes of some samples, by index or mask (N,)."""
        return ExitOutcomes(self.scores[:, samples], self.right[:, samples], self.costs, self.group_of[samples])


def check_labels(labels: NDArray[np.int64], classes: int) -> None:
    """Refuse a set of images unfit for calibration. `labels` (N,) of `classes` known ones.

    Raises: CalibrationError for fewer images than classes, or images of one class only.
    """
    labels = np.asarray(labels)
    if len(labels) < classes:
        raise CalibrationError(
            f"{len(labels)} images for {classes} classes: calibration needs at least one image of each; use more"
        )
    if len(np.unique(labels)) == 1:
        raise CalibrationError(
            f"all {len(labels)} images are of class {labels[0]}: thresholds chosen on one class say nothing of others"
        )


def operating_point(outcomes: ExitOutcomes, thresholds: Values, **settings: float) -> OperatingPoint:
    """The operating point of `thresholds` (K - 1) on these images."""
    exits = leave_at(outcomes.scores, thresholds)
    K = len(outcomes.costs)
    rows = exit_table(exits, outcomes.right, range(K), [0] * K)
    return OperatingPoint(
        thresholds=[float(value) for value in thresholds],
        accuracy=float(outcomes.right[exits, np.arange(outcomes.images)].mean()),
        mean_cost=mean_cost(exits, outcomes.costs),
        exit_rates=[row.rate for row in rows],
        exit_accuracies=[row.accuracy for row in rows],
        settings=settings,
    )


def leave_at(scores: NDArray[np.float64], thresholds: Values) -> NDArray[np.int64]:
    """The exit index (N,) of each sample: the first whose score reaches its threshold, else the last.

    `scores` (K, N) has the last answer in its last row, which is ignored; `thresholds` has K - 1 values.

    Raises: CalibrationError for counts that do not fit or scores that are not numbers.
    """
    scores = np.asarray(scores)
    if len(thresholds) != len(scores) - 1:
        raise CalibrationError(f"{len(scores) - 1} early exits need as many thresholds, got {len(thresholds)}")
    if np.isnan(scores[:-1]).any():
        raise CalibrationError("some exit scores are NaN: the network or its inputs are broken")
    sure = np.ones(scores.shape, dtype=bool)
    sure[:-1] = scores[:-1] >= np.asarray(thresholds, dtype=np.float64).reshape(-1, 1)
    exits: NDArray[np.int64] = sure.argmax(axis=0)
    return exits


def exit_table(
    exits: NDArray[np.int64], right: NDArray[np.bool_], blocks: Sequence[int], macs: Sequence[int]
) -> list[ExitRow]:
    """One row per exit, from the exits samples leave at (N,) and whether each exit is right about them (K, N)."""
    rows = []
    for k, (block, cost) in enumerate(zip(blocks, macs, strict=True)):
        here = exits == k
        count = int(here.sum())
        accuracy = float(right[k, here].mean()) if count else None
        rows.append(ExitRow(k, int(block), count, count / len(exits), accuracy, int(cost)))
    return rows


def mean_cost(exits: NDArray[np.int64], macs: Values) -> float:
    """Mean multiply-adds over samples that leave at `exits` (N,), costs per exit (K,)."""
    return float(np.asarray(macs, dtype=np.float64)[exits].mean())

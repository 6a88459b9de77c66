"""How long to learn, at which size, and whether the heads alone: made to fit the time by a measured look."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pi_dynn.clock import Clock
from pi_dynn.text import counted
from pi_dynn.train.engine import Callback, Row, Trainer
from pi_dynn.train.records import LearnPlan

FEW_PER_CLASS = 5  # training images, below which the heads alone are trained; at 7 the whole network does better
LEAST_EPOCHS, MOST_EPOCHS = 4, 30
ENOUGH_EPOCHS = 8  # at a size; where fewer fit, a smaller size with more epochs does better
SPARE = 0.88  # of the time left: a machine that is shared gets slower
SPARE_LATER = 0.95  # once whole epochs are timed, less is kept in reserve
FIXED_S = 15.0  # engines tried, ranges set, page drawn
PASSES = 2.5  # forward passes over the held-out images to choose, compare and judge, one image at a time
QUANTISED_PASSES = 4.0  # forward passes over the images ranges are set with


class OutOfTime(Exception):
    """The time is up: what was learned so far is used."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a training step, and of one image answered, at one image size."""

    step_s: float
    image_s: float


@dataclass(frozen=True)
class Work:
    """What there is to do: steps of an epoch, images in the parts, classes, images that set the ranges of int8.

    `viewed` are images and views of images that set thresholds and class means.
    """

    steps: int
    train: int
    held_out: int
    classes: int
    ranged: int
    viewed: int


def finishing_s(cost: Cost, work: Work) -> float:
    """Seconds that choosing exits, quantising, checking and judging will take."""
    return FIXED_S + cost.image_s * (PASSES * work.held_out + QUANTISED_PASSES * work.ranged + work.viewed)


def make_plan(model: str, batch_size: int, costs: Mapping[int, Cost], work: Work, left_s: float, how: str) -> LearnPlan:
    """The plan that fits into `left_s` seconds: the largest size with enough epochs, or the heads alone.

    `costs` are by image size, the preferred one first; `how` is "auto", "whole" or "heads".
    """
    size = next(iter(costs))
    per_class = work.train / work.classes

    def plan(size: int, how: str, epochs: int, reason: str, short: bool = False) -> LearnPlan:
        cost = costs[size]
        seconds = finishing_s(cost, work) + cost.image_s * (work.train + work.held_out)
        seconds += epochs * _epoch_s(cost, work)
        return LearnPlan(model, size, how, epochs, batch_size, cost.step_s, cost.image_s, seconds, reason, short)

    if how == "heads":
        return plan(size, "heads", 0, "as asked")
    if how == "auto" and per_class < FEW_PER_CLASS:
        reason = f"{per_class:.0f} training images a class are too few to train the whole network"
        return plan(size, "heads", 0, reason)
    fitting = {size: _epochs_fitting(cost, work, left_s) for size, cost in costs.items()}
    smallest = min(costs)
    fits = next((size for size, epochs in fitting.items() if epochs >= ENOUGH_EPOCHS), smallest)
    if fitting[fits] >= LEAST_EPOCHS:
        epochs = min(fitting[fits], MOST_EPOCHS)
        return plan(fits, "whole", epochs, f"{counted(epochs, 'epoch')} fit the time", epochs < ENOUGH_EPOCHS)
    if how == "whole":
        return plan(smallest, "whole", max(1, fitting[smallest]), "as asked, though the time is short", True)
    return plan(size, "heads", 0, f"the time is too short for {LEAST_EPOCHS} epochs of the whole network", True)


def _epoch_s(cost: Cost, work: Work) -> float:
    return cost.step_s * work.steps + cost.image_s * work.held_out / 2


def _epochs_fitting(cost: Cost, work: Work, left_s: float) -> int:
    left_s -= finishing_s(cost, work) + cost.image_s * (work.train + work.held_out)
    return epochs_within(left_s, _epoch_s(cost, work))


def epochs_within(left_s: float, epoch_s: float, spare: float = SPARE) -> int:
    """Epochs of `epoch_s` seconds that fit into the share `spare` of `left_s`."""
    return max(0, int(spare * left_s / max(1e-9, epoch_s)))


def epochs_in_all(done: int, left_s: float, epoch_s: float) -> int:
    """Epochs of a run that goes on after `done`: one more at least, and MOST_EPOCHS or what fits into `left_s`."""
    return done + max(1, min(MOST_EPOCHS - done, epochs_within(left_s, epoch_s)))


class Timekeeper(Callback):
    """Fits the epochs that are left into the time that is left; hands everything on to another callback.

    A machine that others use is faster or slower than it was when the plan was made.
    """

    def __init__(self, clock: Clock, end_ns: int, inner: Callback) -> None:
        self._clock, self._end_ns, self._inner = clock, end_ns, inner
        self._began_ns = clock.now_ns()
        self._trainer: Trainer | None = None

    def keep(self, trainer: Trainer) -> None:
        """Keep the time of this trainer, whose schedule follows."""
        self._trainer = trainer

    def on_step(self, steps: int) -> None:
        """Raises: OutOfTime."""
        self._inner.on_step(steps)
        if self._clock.now_ns() > self._end_ns:
            raise OutOfTime

    def on_epoch(self, name: str, row: Row) -> None:
        """Plan anew by how long this epoch took."""
        self._inner.on_epoch(name, row)
        now_ns, done = self._clock.now_ns(), int(row["epoch"])
        more = epochs_within((self._end_ns - now_ns) / 1e9, (now_ns - self._began_ns) / 1e9, SPARE_LATER)
        self._began_ns = now_ns
        if self._trainer is not None:
            epochs = max(done, min(MOST_EPOCHS, done + more))
            self._trainer.recipe = replace(self._trainer.recipe, epochs=epochs)

"""The training loop of all stages, and the interface of a stage.

An epoch depends only on its number, the seed and the state after the last epoch: random generators are seeded at
its start. So a killed run resumes from its last complete epoch with the same results, and no generator needs to be
saved.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pi_dynn.clock import Clock, PerfClock
from pi_dynn.errors import PiDynnError, need_extra
from pi_dynn.train.batches import Batches, derived_seed
from pi_dynn.train.processes import ALONE, Processes, keep_freed_memory
from pi_dynn.train.recipe import Recipe, build_optimizer, ema_decay_at, lr_at
from pi_dynn.train.run_folder import RunFolder


class Stage(nn.Module):
    """A network, its loss on a batch, and its figures after an epoch. Subclasses are the stages.

    `forward(*batch)` returns the loss. The engine trains, averages and saves `model`; other modules of a stage, such
    as a teacher, are not changed.
    """

    watched = "accuracy"  # the figure that chooses the best epoch: higher is better
    some_unused = False  # whether some parameters get no gradient in some steps

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Figures of `model` (the trained weights or their average) on held-out images; in no training mode."""
        raise NotImplementedError

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first batch of an epoch, counted from 0."""

    def end_epoch(self, metrics: dict[str, float]) -> bool:
        """Called with the figures of `evaluate`; True ends the training (early stopping)."""
        return False

    def memory(self) -> dict:
        """The state that the stage needs to resume: tensors and plain values."""
        return {}

    def recall(self, memory: dict) -> None:
        """Restore the result of `memory`."""


@torch.inference_mode()
def accuracy(model: nn.Module, x: Tensor, labels: Tensor, device: torch.device, batch_size: int = 128) -> float:
    """Accuracy of `model` on normalised images x (N, 3, H, W) with labels (N,)."""
    was_training = model.training
    model.eval()
    right = 0
    for part, wanted in zip(x.split(batch_size), labels.split(batch_size), strict=True):
        right += int((model(part.to(device)).argmax(1).cpu() == wanted).sum())
    model.train(was_training)
    return right / len(labels)


GUARD_STEPS = 16  # steps between tests of the loss for NaN, each of which synchronises the GPU

Row = dict[str, float | int]


class Callback:
    """The base of callbacks for progress; its methods are no-ops."""

    def on_step(self, steps: int) -> None:
        """Called after every so many steps."""

    def on_epoch(self, name: str, row: Row) -> None:
        """Called at the end of an epoch of the stage `name` with its figures."""


class TensorBoardCallback(Callback):
    """Writes every figure of every epoch to a folder that TensorBoard reads."""

    def __init__(self, folder: str | Path) -> None:
        """Raises: InputError if the package is not installed."""
        with need_extra("tensorboard", "--tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
        self._writer = SummaryWriter(str(folder))

    def on_epoch(self, name: str, row: Row) -> None:
        for key, value in row.items():
            if key != "epoch":
                self._writer.add_scalar(f"{name}/{key}", value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


@dataclass(frozen=True)
class RunContext:
    """The environment of a training run: processes, folder, callback and clock."""

    processes: Processes = ALONE
    folder: RunFolder | None = None
    callback: Callback = field(default_factory=Callback)
    clock: Clock = field(default_factory=PerfClock)
    name: str = "training"


@dataclass(frozen=True)
class Fitted:
    """The result of training: a row per epoch, the best epoch counted from 1, and the network to use.

    `model` holds the average of the weights, or without an average the weights, of the last epoch; `best` is the
    state dict of the best one.
    """

    history: list[Row]
    best_epoch: int
    best_score: float
    model: nn.Module
    best: dict[str, Tensor]


def fit(stage: Stage, batches: Batches, recipe: Recipe, context: RunContext | None = None) -> Fitted:
    """Train `stage.model` in place, resuming from the state in the folder if there is one.

    Raises: PiDynnError when the loss is no longer finite.
    """
    return Trainer(stage, batches, recipe, context or RunContext()).run()


class Trainer:
    """One run of the engine: `run()` does it all, `train_epoch()` is one pass over the batches."""

    def __init__(self, stage: Stage, batches: Batches, recipe: Recipe, context: RunContext) -> None:
        self.stage, self.batches, self.recipe, self.context = stage, batches, recipe, context
        processes = context.processes
        keep_freed_memory()
        stage.to(processes.device)
        self.optimizer = build_optimizer(stage.model, recipe)
        self.average = self._averaged() if recipe.ema_decay else None
        self.wrapped = processes.wrap(stage, stage.some_unused)
        self.history: list[Row] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch, self.best_score = 0, -math.inf
        self.ended = False

    def _averaged(self) -> AveragedModel:
        recipe = self.recipe

        def blend(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
            share = 1 - ema_decay_at(int(count), recipe)
            if torch.is_floating_point(averaged[0]):
                torch._foreach_lerp_(averaged, current, share)
            else:  # counters of batch norms
                torch._foreach_copy_(averaged, current)

        return AveragedModel(self.stage.model, multi_avg_fn=blend, use_buffers=True)

    def run(self) -> Fitted:
        """Train to the end."""
        self._resume()
        while not self.ended and len(self.history) < self.recipe.epochs:
            epoch = len(self.history)
            row = self.train_epoch(epoch)
            metrics = self.context.processes.share(
                self.stage.evaluate(self.answering) if self.context.processes.first else None
            )
            self._finish_epoch(epoch, row | metrics, metrics)
        return Fitted(self.history, self.best_epoch, self.best_score, self.answering, self.best)

    @property
    def answering(self) -> nn.Module:
        """The network that is evaluated and saved: the average, if there is one."""
        return self.average.module if self.average is not None else self.stage.model

    def train_epoch(self, epoch: int, most_steps: int | None = None) -> Row:
        """One pass over the batches, or its first `most_steps`; loss, speed and share of time spent waiting."""
        recipe, processes, clock = self.recipe, self.context.processes, self.context.clock
        torch.manual_seed(derived_seed(recipe.seed, epoch, 2, processes.rank))
        self.stage.train()
        self.stage.begin_epoch(epoch)
        steps = self.batches.steps if most_steps is None else min(most_steps, self.batches.steps)
        total, waited_ns, started_ns, lr = torch.zeros((), device=processes.device), 0, clock.now_ns(), recipe.lr
        source = self.batches.epoch(epoch)
        for step in range(steps):
            asked_ns = clock.now_ns()
            batch = tuple(part.to(processes.device, non_blocking=True) for part in next(source))
            waited_ns += clock.now_ns() - asked_ns
            lr = lr_at(epoch * self.batches.steps + step, recipe.epochs * self.batches.steps, recipe)
            total += self._step(batch, lr)
            if processes.device.type == "cpu" or step % GUARD_STEPS == 0 or step == steps - 1:
                self._guard(total, epoch)
            self.context.callback.on_step(1)
        seconds = max(1e-9, (clock.now_ns() - started_ns) / 1e9)
        return {
            "epoch": epoch + 1,
            "lr": lr,
            "loss": self._mean(total / steps),
            "images_per_s": steps * self.batches.samples / seconds,
            "waited": waited_ns / 1e9 / seconds,
        }

    def _step(self, batch: tuple[Tensor, ...], lr: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        with torch.autocast(self.context.processes.device.type, dtype=torch.bfloat16, enabled=self.recipe.amp):
            loss = self.wrapped(*batch)
        loss.backward()
        if self.recipe.clip_grad:
            nn.utils.clip_grad_norm_(self.stage.model.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.stage.model)
        return loss.detach()

    def _guard(self, total: Tensor, epoch: int) -> None:
        if not torch.isfinite(total):
            raise PiDynnError(
                f"{self.context.name}: the loss became {total.item()} in epoch {epoch + 1}; lower lr={self.recipe.lr}"
            )

    def _mean(self, value: Tensor) -> float:
        if self.context.processes.world > 1:
            torch.distributed.all_reduce(value)
            value = value / self.context.processes.world
        return float(value)

    def _finish_epoch(self, epoch: int, row: Row, metrics: dict[str, float]) -> None:
        self.history.append(row)
        score = metrics.get(self.stage.watched, 0.0)
        if score > self.best_score:
            self.best_score, self.best_epoch = score, epoch + 1
            self.best = {key: value.detach().clone() for key, value in self.answering.state_dict().items()}
        stale = self.recipe.patience and epoch + 1 - self.best_epoch >= self.recipe.patience
        self.ended = self.stage.end_epoch(metrics) or bool(stale)
        if self.context.processes.first and self.context.folder is not None:
            self._save()
        self.context.callback.on_epoch(self.context.name, row)

    def _save(self) -> None:
        """Save weights first and the state last, so that a run killed in between repeats the epoch."""
        folder = self.context.folder
        if self.best_epoch == len(self.history):
            folder.save_weights("best", self.best)
        folder.save_weights("last", self.answering.state_dict())
        folder.write_log(self.history)
        folder.save_state(
            {
                "model": self.stage.model.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "history": self.history,
                "best": self.best,
                "best_epoch": self.best_epoch,
                "best_score": self.best_score,
                "ended": self.ended,
                "stage": self.stage.memory(),
            }
        )

    def _resume(self) -> None:
        state = None if self.context.folder is None else self.context.folder.load_state()
        if state is None:
            return
        self.stage.recall(state["stage"])
        self.stage.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.ended = state["history"], state["ended"]
        self.best = {key: value.to(self.context.processes.device) for key, value in state["best"].items()}
        self.best_epoch, self.best_score = state["best_epoch"], state["best_score"]
        self.context.callback.on_step(len(self.history) * self.batches.steps)

"""One training phase: a network, images of one size, a schedule, and a log line per epoch."""

import csv
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pi_dynn.train.batches import LoadedBatches, Order
from pi_dynn.train.engine import Callback, Row, RunContext, fit
from pi_dynn.train.images import AugmentedImages, Mixing
from pi_dynn.train.processes import ALONE, Processes
from pi_dynn.train.recipe import Recipe
from pi_dynn.train.run_folder import RunFolder
from pi_dynn.train.transfer import Transfer


@dataclass(frozen=True)
class Phase:
    """One stretch of training at one image size."""

    name: str
    image_size: int
    epochs: int
    lr: float
    final_lr: float
    warmup_steps: int = 200
    batch_size: int = 128
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    exit_weight: float = 0.3  # of the mean loss of the exits, beside the final loss
    feature_weight: float = 0.0  # of the squared error against the teacher's features; 0: no teacher
    mix_probability: float = 0.5  # share of batches with mixup or cutmix
    smallest_crop: float = 0.5
    task_only: bool = False  # the task's images and classes alone, or those of the other sets too
    task_repeats: int = 2  # beside others: how often an image of the task is drawn for each of theirs
    ema_decay: float = 0.998
    drop_path: float = 0.05
    clip_grad: float = 1.0
    amp: bool = False  # bfloat16 products, on a processor that has them


@torch.inference_mode()
def predict_exits(model: nn.Module, x: Tensor, batch_size: int = 128) -> Tensor:
    """Logits of every exit for normalised images x (N, 3, S, S): (exits + 1, N, classes), on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    parts = [torch.stack([z for _, z, _ in model.forward_exits(part.to(device))]) for part in x.split(batch_size)]
    return torch.cat(parts, dim=1).cpu()


class PhaseStage(Transfer):
    """Joint training of all exits whose answers may hold a teacher's features after the classes; figures by a function.

    Targets are labels (N,), or rows of probabilities and features as the heads answer.
    """

    def __init__(self, model: nn.Module, phase: Phase, outputs: int, num_classes: int, evaluate: Callable) -> None:
        super().__init__(
            model,
            held_out=(torch.zeros(0), torch.zeros(0)),  # figures come from `evaluate`
            mix=Mixing(outputs, phase.mix_probability, mixup_alpha=0.2),
            label_smoothing=phase.label_smoothing,
            exit_weight=phase.exit_weight / max(1, len(model.exit_blocks)),
        )
        self.feature_weight, self.num_classes, self._evaluate = phase.feature_weight, num_classes, evaluate

    def answer_loss(self, answer: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of the classes, plus the squared error of the teacher's features where there are any."""
        features = answer.shape[1] - self.num_classes
        if target.ndim == 1 or not features:
            return super().answer_loss(answer, target)
        (z, guess), (y, truth) = (one.split([self.num_classes, features], 1) for one in (answer, target))
        return super().answer_loss(z, y) + self.feature_weight * F.mse_loss(guess, truth)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return self._evaluate(model)


class PhaseLog(Callback):
    """Prints the figures of every epoch and adds them to a CSV file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_epoch(self, name: str, row: Row) -> None:
        figures = {key: value for key, value in row.items() if key not in ("epoch", "lr", "images_per_s", "waited")}
        text = {
            "phase": name,
            "epoch": str(row["epoch"]),
            "lr": f"{row['lr']:.2e}",
            "loss": f"{figures.pop('loss'):.4f}",
            "images_per_s": f"{row['images_per_s']:.0f}",
        } | {key: f"{value:.4f}" for key, value in figures.items()}
        append_row(self.path, text)
        print("  ".join(f"{key} {value}" for key, value in text.items()), flush=True)


def train_phase(
    model: nn.Module,
    data: AugmentedImages,
    sample_weights: Tensor,
    phase: Phase,
    num_classes: int,
    seed: int,
    evaluate: Callable[[nn.Module], dict[str, float]],
    log_path: Path,
    *,
    folder: RunFolder | None = None,
    processes: Processes = ALONE,
) -> nn.Module:
    """Train `model` in place for one phase and return its exponential moving average.

    With a `folder`, a phase that was interrupted goes on after its last whole epoch.

    The labels of `data` are classes, or rows of probabilities and teacher's features, as the heads answer.
    `sample_weights` (N,) says how often each image is drawn. `evaluate` gets the average after each epoch;
    what it returns is printed and logged.

    Raises: PiDynnError when the loss is no longer finite.
    """
    outputs = data.labels.shape[1] if data.labels.ndim == 2 else num_classes
    order = Order(len(data), phase.batch_size, seed, processes, weights=tuple(sample_weights.tolist()))
    gpu = processes.device.type == "cuda"
    loaded = LoadedBatches(data, order, workers=os.cpu_count() or 1 if gpu else 1, pin=gpu)
    recipe = Recipe(
        epochs=phase.epochs,
        batch_size=phase.batch_size,
        lr=phase.lr,
        final_lr=phase.final_lr,
        warmup_steps=phase.warmup_steps,
        weight_decay=phase.weight_decay,
        clip_grad=phase.clip_grad,
        ema_decay=phase.ema_decay,
        ema_warmup=False,
        amp=phase.amp,
        seed=seed,
    )
    stage = PhaseStage(model, phase, outputs, num_classes, evaluate)
    context = RunContext(processes, folder, PhaseLog(log_path), name=phase.name)
    return fit(stage, loaded, recipe, context).model


def append_row(path: Path, row: dict[str, str]) -> None:
    """Add one row to a CSV log, with a header if the file is new."""
    new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def phase_record(phase: Phase) -> dict:
    """The phase as plain data for a manifest."""
    return asdict(phase)

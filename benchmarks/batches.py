#!/usr/bin/env python3
"""What a batch costs beside its images one by one: samples that exit must drop out of the work that is left.

    python benchmarks/batches.py
    python benchmarks/batches.py DATA/ucm --batch-sizes 4,16,64 --n 1000

Each batch is timed right after its images alone, so that a busy moment hits both. The ratio should not exceed
1.1: a batch that waited for its deepest sample would cost full depth for all. Without DATA the images are crops
of the bundled samples.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads its OpenMP

from pathlib import Path

import click
import numpy as np
import torch

from pi_dynn.cli.options import sample_folder
from pi_dynn.clock import PerfClock
from pi_dynn.data.decode import decode_image
from pi_dynn.data.folders import walk_images
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.runtime.session import Session
from pi_dynn.stats import median
from pi_dynn.text import milliseconds, table

HEADERS = ("batch", "images", "one by one", "batched", "batched / one by one", "full depth for all")


def load_images(session: Session, data: Path | None, n: int) -> list[torch.Tensor]:
    """`n` inputs, drawn from a folder, or random crops of the samples."""
    random = np.random.default_rng(0)
    if data is not None:
        paths = random.permutation(np.array(list(walk_images(data)), dtype=object))
        return [session.preprocess(path) for path in paths[:n]]
    pictures = [decode_image(path) for path in walk_images(sample_folder())]
    images = []
    for i in range(n):
        picture = pictures[i % len(pictures)]
        left, top = random.integers(0, np.array(picture.size) // 4 + 1)
        images.append(session.preprocess(picture.crop((left, top, picture.width - left, picture.height - top))))
    return images


def cost(session: Session, images: list[torch.Tensor], size: int) -> tuple[list[float], list[float]]:
    """Seconds of each batch of `size`: one by one, and together."""
    clock, alone, together = PerfClock(), [], []
    for start in range(0, len(images) - size + 1, size):
        batch = images[start : start + size]
        begin_ns = clock.now_ns()
        single = list(session.classify_many(batch))
        middle_ns = clock.now_ns()
        batched = list(session.classify_many(batch, batch_size=size))
        together.append((clock.now_ns() - middle_ns) / 1e9)
        alone.append((middle_ns - begin_ns) / 1e9)
        assert [one.exit_index for one in single] == [one.exit_index for one in batched]
    return alone, together


@click.command()
@click.argument("data", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="Bundle to use instead of the embedded one.")
@click.option("--n", default=1000, show_default=True, help="Images.")
@click.option("--batch-sizes", default="4,16,64", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--engine", default="auto", show_default=True)
@click.option("--markdown", is_flag=True)
def main(data: Path | None, bundle: Path | None, n: int, batch_sizes: str, threads: int, engine: str, markdown: bool):
    """Print the cost per image, one by one and batched; the ratio is the median over the batches."""
    session = Session(load_bundle(bundle), threads=threads, engine=engine)
    images = load_images(session, data, n)
    exits = [session.classify(image).exit_index for image in images]
    deepest = session.forced_thresholds(session.exits)
    full_s = median([session.classify(image, deepest).latency_s for image in images[:100]])
    rows = []
    for size in (int(text) for text in batch_sizes.split(",")):
        alone, together = cost(session, images, size)
        ratio = median([b / a for a, b in zip(alone, together, strict=True)])
        per_image = [milliseconds(median(times) / size) for times in (alone, together)]
        rows.append((str(size), str(len(alone) * size), *per_image, f"{ratio:.2f}", milliseconds(full_s)))
    click.echo(table(HEADERS, rows, markdown=markdown))
    shares = ", ".join(f"{exits.count(k)} after block {block + 1}" for k, block in enumerate(session.manifest.blocks))
    click.echo(f"{session.manifest.precision} {session.engine}, {threads} threads; exits: {shares}", err=True)


if __name__ == "__main__":
    main()

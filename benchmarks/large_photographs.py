#!/usr/bin/env python3
"""From a 12-megapixel JPEG to the network's input, beside Pillow's own draft decoding and one resize.

    python benchmarks/large_photographs.py
    python benchmarks/large_photographs.py photo1.jpg photo2.jpg

Both in turns. What ours adds (checks, EXIF, the float tensor) should stay below a fifth. Without photographs two
synthetic ones of 4000 x 3000 are used, one of them turned by its EXIF tag. Then the same files through
`classify_many`: decoding and the network at once, beside one after the other, on two threads or more.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads its OpenMP

import tempfile
from pathlib import Path

import click
import numpy as np
from PIL import Image

from pi_dynn.clock import PerfClock
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.runtime.session import Session
from pi_dynn.stats import bootstrap_interval, median
from pi_dynn.text import milliseconds

ORIENTATION = 0x0112  # EXIF tag


def photographs(folder: Path) -> list[Path]:
    """Two JPEG files with the detail of a photograph: noise of every scale."""
    random = np.random.default_rng(0)
    paths = []
    for turned in (1, 6):
        picture = np.zeros((3000, 4000, 3), dtype=np.float32)
        for scale in (4, 16, 64, 256):
            noise = random.normal(0, 25, (3000 // scale + 1, 4000 // scale + 1, 3)).clip(-90, 90)
            tile = Image.fromarray((noise + 128).astype(np.uint8)).resize((4000, 3000), Image.Resampling.BICUBIC)
            picture += np.asarray(tile, dtype=np.float32) - 128
        exif = Image.Exif()
        exif[ORIENTATION] = turned
        paths.append(folder / f"turned{turned}.jpg")
        Image.fromarray((picture + 128).clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90, exif=exif)
    return paths


def pillow_alone(path: Path, preprocess: Preprocess) -> np.ndarray:
    """The least that gives the network's pixels: draft decoding at twice its size, and one resize."""
    with Image.open(path) as image:
        scale = 2 * preprocess.size / preprocess.crop / min(image.size)
        image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
        return np.asarray(image.resize((preprocess.size, preprocess.size), Image.Resampling.BICUBIC))


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--n", "rounds", default=40, show_default=True, help="Times each way, all files in turn.")
@click.option("--threads", default=1, show_default=True, help="Threads of the network.")
def main(files: tuple[Path, ...], rounds: int, threads: int) -> None:
    """Print both times and their ratio, then the time per photograph with and without overlap."""
    clock, session = PerfClock(), Session(threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        paths = list(files) or photographs(Path(folder))

        def seconds(work, *arguments) -> float:
            start_ns = clock.now_ns()
            work(*arguments)
            return (clock.now_ns() - start_ns) / 1e9

        pairs = []
        for i in range(rounds):
            path = paths[i % len(paths)]
            ways = [(pillow_alone, path, session.preprocess), (session.preprocess, path)]
            times_s = {k: seconds(*ways[k]) for k in ((0, 1) if i % 2 else (1, 0))}
            pairs.append((times_s[0], times_s[1]))
        ratios = [ours / pillow for pillow, ours in pairs]
        low, high = bootstrap_interval(ratios)
        click.echo(f"Pillow alone      {milliseconds(median([pillow for pillow, _ in pairs]))}")
        click.echo(f"decode and input  {milliseconds(median([ours for _, ours in pairs]))}")
        click.echo(f"ratio             {median(ratios):.3f} (95 % {low:.3f} .. {high:.3f})")

        several = [paths[i % len(paths)] for i in range(min(rounds, 20))]
        apart, together = [], []
        for _ in range(5):
            apart.append(seconds(lambda: [session.classify(path) for path in several]) / len(several))
            together.append(seconds(lambda: list(session.classify_many(several))) / len(several))
        click.echo(f"a photograph answered, one after the other  {milliseconds(median(apart))}")
        click.echo(f"a photograph answered, decoding meanwhile   {milliseconds(median(together))}")


if __name__ == "__main__":
    main()

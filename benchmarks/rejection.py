#!/usr/bin/env python3
"""How well "none of these" works: which score tells unknown images, and whether its promise holds.

    python benchmarks/rejection.py ucm --split calibration/ucm_split.json cifar10 tiny_imagenet

The first data set is the one the bundle knows; of its split, `train` gives class means, `calibrate` the limit and
`test` what is kept. The others hold images of none of its classes: folders, or zip files in them, of which --images are
drawn. Then the promise: `calibrate` and `test` are mixed and shared out anew, 1,000 times, and what the limit of one
half rejects of the other is averaged.
"""

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from pi_dynn import Session, load_bundle
from pi_dynn.calibrate.outcomes import leave_at
from pi_dynn.calibrate.reject import class_means, exit_similarities, fit_rejection
from pi_dynn.data.decode import SUFFIXES
from pi_dynn.data.folders import load_split, walk_images
from pi_dynn.data.layouts import open_data
from pi_dynn.evaluate.outputs import collect_outputs, exit_outputs
from pi_dynn.text import percent, table

DRAWS = 1_000
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # logits (N, C) and exits (N,) to values (N,)


@click.command()
@click.argument("known", type=click.Path(exists=True, path_type=Path))
@click.argument("unknown", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--split", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--images", default=500, show_default=True, help="Drawn from each unknown set.")
@click.option("--alpha", default=0.05, show_default=True, help="Share of known images that may be rejected.")
@click.option("--markdown", is_flag=True)
def main(known: Path, unknown: tuple[Path, ...], split: Path, bundle: Path | None, images: int, alpha: float, markdown):
    """Print both tables."""
    session = Session(load_bundle(bundle))
    parts = load_split(split, open_data(known).data)
    outputs = {name: collect_outputs(session, parts[name]) for name in ("train", "calibrate", "test")}
    means = class_means(outputs["train"].logits, outputs["train"].labels, session.manifest.labels)
    sets = {name: (outputs[name].logits, outputs[name].scores) for name in ("calibrate", "test")}
    for folder in unknown:
        sets[folder.name] = outputs_of(session, drawn(folder, images))
    answers = {name: answered(session, *one) for name, one in sets.items()}
    scores = all_scores(means)
    headers = ("score", "kept of test", *(f"accepted of {folder.name}" for folder in unknown))
    rows = [(name, *(percent(share) for share in accepted(score, answers, alpha))) for name, score in scores.items()]
    click.echo(table(headers, rows, markdown=markdown) + "\n")
    logits, exits = (np.concatenate([answers[name][k] for name in ("calibrate", "test")]) for k in (0, 1))
    rates = shared_out_anew(scores["cosine to class means"](logits, exits), means, alpha)
    click.echo(
        f"{DRAWS:,} splits of {len(logits)} images: rejected on average {percent(float(rates.mean()), 2)} "
        f"(at most {percent(alpha)} promised), 5th to 95th percentile {percent(float(np.quantile(rates, 0.05)))} to "
        f"{percent(float(np.quantile(rates, 0.95)))}"
    )


def drawn(folder: Path, count: int) -> Iterator[Image.Image]:
    """Images of a folder or of zip files in it, drawn with a fixed seed."""
    places: list[tuple[Path, str | None]] = [(path, None) for path in walk_images(folder)]
    for archive in sorted(folder.glob("*.zip")):
        with zipfile.ZipFile(archive) as opened:
            places += [(archive, name) for name in opened.namelist() if Path(name).suffix.lower() in SUFFIXES]
    for i in np.random.default_rng(0).permutation(len(places))[:count]:
        path, name = places[i]
        content = path.read_bytes() if name is None else zipfile.ZipFile(path).read(name)
        yield Image.open(io.BytesIO(content)).convert("RGB")


def outputs_of(session: Session, images: Iterator[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """Logits (K, N, C) and gate scores (K, N)."""
    outputs = [exit_outputs(session, session.preprocess(image)) for image in images]
    return tuple(np.concatenate([one[k] for one in outputs]).swapaxes(0, 1) for k in (0, 1))


def answered(session: Session, logits: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) where each image leaves, and at which exit (N,)."""
    exits = leave_at(scores, session.manifest.thresholds)
    return logits[exits, np.arange(len(exits))], exits


def all_scores(means: np.ndarray) -> dict[str, Score]:
    """The scores compared; higher is more like the known images."""

    def cosine(logits: np.ndarray, exits: np.ndarray) -> np.ndarray:
        return exit_similarities(np.broadcast_to(logits, (len(means), *logits.shape)), exits, means)

    return {
        "energy": lambda logits, exits: torch.from_numpy(logits).logsumexp(-1).numpy(),
        "max logit": lambda logits, exits: logits.max(-1),
        "max probability": lambda logits, exits: torch.from_numpy(logits).softmax(-1).amax(-1).numpy(),
        "cosine to class means": cosine,
    }


def accepted(score: Score, answers: dict[str, tuple[np.ndarray, np.ndarray]], alpha: float) -> Iterator[float]:
    """Share accepted of every set but the one that sets the limit."""
    values = {name: score(*one) for name, one in answers.items()}
    limit = fit_rejection(values.pop("calibrate"), np.zeros((1, 1, 1)), alpha).limit
    return (float((one >= limit).mean()) for one in values.values())


def shared_out_anew(values: np.ndarray, means: np.ndarray, alpha: float) -> np.ndarray:
    """The share (DRAWS,) of one random half that the limit of the other rejects."""
    random, half, rates = np.random.default_rng(0), len(values) // 2, []
    for _ in range(DRAWS):
        order = random.permutation(values)
        rates.append((order[half:] < fit_rejection(order[:half], means, alpha).limit).mean())
    return np.array(rates)


if __name__ == "__main__":
    main()

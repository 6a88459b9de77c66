#!/usr/bin/env python3
"""Whether int8 answers as fp32 does, on real images: label, accuracy, and the exit each image leaves at.

    python benchmarks/int8_agreement.py DATA/ucm --split calibration/ucm_split.json --part test
    python benchmarks/int8_agreement.py DATA/ucm --bundle int8.pt --reference fp32.pt

The reference is an fp32 bundle of the same checkpoint. Without one it is the int8 bundle's own weights computed in
floats, which leaves the rounding of the weights out. Wanted: the same label for 99 % of the images, accuracy within
0.3 points, the same exit for 97 %; the exit status is 1 if one of them is missed.
"""

import sys
from pathlib import Path

import click
import numpy as np

from pi_dynn.calibrate.outcomes import leave_at
from pi_dynn.cli.options import open_part
from pi_dynn.evaluate.outputs import collect_outputs
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.runtime.session import Session
from pi_dynn.text import percent, table

SAME_LABEL, SAME_EXIT, ACCURACY_POINTS = 0.99, 0.97, 0.3


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", type=click.Path(exists=True, path_type=Path), help="Written split; take one part of it.")
@click.option("--part", default="test", show_default=True)
@click.option("--bundle", type=click.Path(path_type=Path), help="int8 bundle. [default: the embedded one]")
@click.option("--reference", type=click.Path(exists=True, path_type=Path), help="fp32 bundle of the same checkpoint.")
@click.option("--engine", default="auto", show_default=True)
def main(data: Path, split: Path | None, part: str, bundle: Path | None, reference: Path | None, engine: str) -> None:
    """Run both over the images once, through every exit, and compare."""
    int8 = Session(load_bundle(bundle), engine=engine)
    fp32 = Session(load_bundle(reference), engine="auto") if reference else Session(int8.bundle, engine="fp32")
    images = open_part(data, split, part)
    outputs = [collect_outputs(session, images) for session in (int8, fp32)]
    limits = int8.manifest.thresholds
    exits = [leave_at(one.scores, limits) for one in outputs]
    samples = np.arange(len(exits[0]))
    labels = [one.logits.argmax(-1)[left, samples] for one, left in zip(outputs, exits, strict=True)]
    deep = [one.logits[-1].argmax(-1) for one in outputs]
    truth = outputs[0].labels

    def row(name: str, ours: np.ndarray, theirs: np.ndarray) -> tuple[tuple[str, ...], float, float]:
        same, right = float((ours == theirs).mean()), [float((one == truth).mean()) for one in (ours, theirs)]
        points = 100 * (right[0] - right[1])
        cells = (name, percent(same, 2), percent(right[0], 2), percent(right[1], 2), f"{points:+.2f}")
        return cells, same, abs(points)

    rows = [row("full depth", *deep), row("with exits", *labels)]
    same_exit = float((exits[0] == exits[1]).mean())
    headers = ("", "same label", f"int8 {int8.engine} acc@1", f"fp32 {fp32.engine} acc@1", "points")
    click.echo(table(headers, [cells for cells, _, _ in rows]))
    click.echo(f"same exit: {percent(same_exit, 2)} of {len(samples)} images")
    met = all(same >= SAME_LABEL and points <= ACCURACY_POINTS for _, same, points in rows) and same_exit >= SAME_EXIT
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()

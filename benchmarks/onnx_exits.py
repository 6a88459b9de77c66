#!/usr/bin/env python3
"""Whether ONNX Runtime or LiteRT takes the exits TorchScript takes: a bundle against another form, image by image.

    python benchmarks/onnx_exits.py DATA/ucm
    python benchmarks/onnx_exits.py DATA/cifar10 --bundle runs/branchynet/branchynet.pt
    python benchmarks/onnx_exits.py DATA/ucm --split calibration/ucm_split.json --bundle lite0 --form litert

DATA/... has one folder per class; the images are spread over all of them. For every pair of engines: images that
leave at the same exit, images given the same label, and the largest difference of a score. In float both compute
the same numbers; in int8 each quantises its inputs in its own way. With --onnx, the bundle in float against that
one, for example one made with static int8; with --form, a bundle that comes along against its own other form. A network
that cannot compute in floats does so on the int8 engine. Needs pip install 'pi-dynn[onnx]', or 'pi-dynn[litert]'.
"""

from pathlib import Path

import click
import numpy as np

from pi_dynn.cli.options import open_part
from pi_dynn.deploy.onnx import onnx_bundle
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.runtime.session import Session


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="Bundle to use instead of the embedded one.")
@click.option(
    "--onnx", "given", type=click.Path(path_type=Path), help="ONNX bundle to compare with, not one made here."
)
@click.option("--form", type=click.Choice(["onnx", "litert"]), help="Other form of a bundle that comes along.")
@click.option("--split", type=click.Path(exists=True, path_type=Path), help="Take its test part.")
@click.option("--n", default=500, show_default=True, help="Images.")
@click.option("--threads", type=click.IntRange(1))
def main(
    data: Path,
    bundle: Path | None,
    given: Path | None,
    form: str | None,
    split: Path | None,
    n: int,
    threads: int | None,
) -> None:
    """Answer the images with both engines and count where they agree."""
    images = open_part(data, split, "test")
    chosen = np.linspace(0, len(images) - 1, min(n, len(images))).round().astype(int).tolist()
    scripted = load_bundle(bundle)
    if given is not None or form is not None:
        pairs = [("fp32", load_bundle(given or bundle, form=form))]
    else:
        precisions = ["fp32"] if scripted.manifest.precision == "fp32" else ["fp32", "int8"]
        pairs = [(name, onnx_bundle(scripted, name)) for name in precisions]
    for precision, converted in pairs:
        one = Session(
            scripted, threads, engine="fp32" if precision == "fp32" and scripted.manifest.has_floats else "auto"
        )
        other = Session(converted, threads)
        answers = [[session.classify(images.source(i)) for i in chosen] for session in (one, other)]
        answered = list(zip(*answers, strict=True))
        same_exit = sum(a.exit_index == b.exit_index for a, b in answered)
        same_label = sum(a.class_index == b.class_index for a, b in answered)
        apart = max(abs(a.score - b.score) for a, b in answered if a.exit_index == b.exit_index)
        click.echo(
            f"{scripted.manifest.model}, {one.engine} and {other.engine} {converted.manifest.precision}: "
            f"same exit {same_exit} of {len(answered)}, same label {same_label}, scores at most {apart:.1e} apart"
        )


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The table of the README: one network, the same weights, eager training form against the deploy forms.

    python benchmarks/side_by_side.py                     # random weights, and the embedded bundle with exits
    python benchmarks/side_by_side.py --checkpoint FILE   # the embedded model's own training checkpoint

12-192 at 128 px, one image at a time, every variant in turns in one run. What a weight is worth does not change
how long its product takes, so the eager form may have any weights; the exits need the trained ones, which are
those of the embedded bundle.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads its OpenMP

from pathlib import Path

import click
import torch

from pi_dynn.cli.classify import sample_folder
from pi_dynn.clock import PerfClock
from pi_dynn.data.folders import walk_images
from pi_dynn.deploy.builder import build_bundle
from pi_dynn.jobs.benchmark import Variant, measure, session_variants
from pi_dynn.models import create_model
from pi_dynn.models.checkpoint import load_checkpoint
from pi_dynn.report.benchmark import latency_table
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.runtime.session import Session


@click.command()
@click.option("--checkpoint", type=click.Path(exists=True, path_type=Path), help="Weights of the eager form.")
@click.option("--n", "rounds", default=200, show_default=True, help="Answers per variant.")
@click.option("--threads", default=1, show_default=True)
@click.option("--markdown", is_flag=True)
def main(checkpoint: Path | None, rounds: int, threads: int, markdown: bool) -> None:
    """Time the eager training form, the fp32 and int8 deploy forms, and the embedded bundle with exits."""
    embedded = Session(load_bundle(), threads=threads)
    manifest = embedded.manifest
    arguments = {"num_classes": len(manifest.labels), "image_size": embedded.preprocess.size}
    model = create_model(manifest.model, exits=manifest.arguments["exits"], **arguments).eval()
    if checkpoint is not None:
        load_checkpoint(model, checkpoint)
    inputs = [embedded.preprocess.load(path) for path in walk_images(sample_folder())]

    @torch.inference_mode()
    def eager(i: int) -> torch.Tensor:
        return model(inputs[i % len(inputs)].unsqueeze(0))

    variants = [Variant("eager training form, fp32", "none", eager)]
    for precision in ("fp32", "int8"):
        bundle = build_bundle(
            model,
            exits=manifest.exit_blocks,
            thresholds=manifest.thresholds,
            precision=precision,
            labels=manifest.labels,
            preprocess=embedded.preprocess,
        )
        session = Session(bundle, threads=threads)
        variants.append(session_variants(session, inputs, f"deploy form, {precision} ({session.engine})")[0])
    variants += session_variants(embedded, inputs, f"embedded bundle, int8 ({embedded.engine})")
    rows = measure(variants, rounds, threads, PerfClock())
    click.echo(latency_table(rows, markdown))
    click.echo(f"{len(inputs)} images, {rounds} answers each, {threads} threads, torch {torch.__version__}", err=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""RecNeXt beside LSNet on this processor, as published for four Cortex-A57: ONNX, one image, 224 px.

    python benchmarks/arm_comparison.py --threads 4

All six run in turns, so that a busy moment hits all alike. The published figures were measured on another machine:
what compares is the ranking and each latency over that of the fastest. Needs pip install 'pi-dynn[onnx]'.
Source of the published figures: suous/RecNeXt, lsnet/README.md.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads its OpenMP

import click
import torch

from pi_dynn import Preprocess, build_bundle, create_model
from pi_dynn.clock import PerfClock
from pi_dynn.deploy.onnx import onnx_bundle
from pi_dynn.latency.benchmark import Variant, measure
from pi_dynn.runtime.onnx_network import FULL_DEPTH, OnnxNetwork
from pi_dynn.text import milliseconds, table

PUBLISHED_MS = {"recnext_t": 105, "recnext_s": 182, "recnext_b": 296, "lsnet_t": 91, "lsnet_s": 139, "lsnet_b": 335}
CLASSES, SIZE = 1000, 224
HEADERS = ("network", "here", "95 % interval", "x fastest", "four A57", "x fastest")


def network(name: str, threads: int) -> OnnxNetwork:
    """The folded network as one ONNX graph, its weights as they come: they do not change what it costs."""
    torch.manual_seed(0)
    bundle = build_bundle(
        create_model(name, num_classes=CLASSES, image_size=SIZE).eval(),
        exits=[],
        thresholds=[],
        precision="fp32",
        labels=[str(i) for i in range(CLASSES)],
        preprocess=Preprocess(size=SIZE),
    )
    return OnnxNetwork([onnx_bundle(bundle).read(FULL_DEPTH)], threads)


@click.command()
@click.option("--n", "rounds", default=100, show_default=True, help="Runs per network.")
@click.option("--threads", default=1, show_default=True)
@click.option("--markdown", is_flag=True)
def main(rounds: int, threads: int, markdown: bool) -> None:
    """Time the six and print them beside the published figures."""
    torch.set_num_threads(threads)
    x = torch.randn(1, 3, SIZE, SIZE)
    networks = {name: network(name, threads) for name in PUBLISHED_MS}
    variants = [Variant(name, "none", lambda i, run=run: run(x, [])) for name, run in networks.items()]
    rows = {row.name: row for row in measure(variants, rounds, threads, PerfClock())}
    fastest_s, fastest_ms = min(row.median_s for row in rows.values()), min(PUBLISHED_MS.values())
    cells = []
    for name in sorted(PUBLISHED_MS, key=PUBLISHED_MS.get):
        row, there_ms = rows[name], PUBLISHED_MS[name]
        interval = " .. ".join(milliseconds(value) for value in row.ci95_s)
        ratios = f"{row.median_s / fastest_s:.2f}", f"{there_ms / fastest_ms:.2f}"
        cells.append((name, milliseconds(row.median_s), interval, ratios[0], f"{there_ms} ms", ratios[1]))
    click.echo(table(HEADERS, cells, markdown=markdown))
    ranking = [sorted(PUBLISHED_MS, key=key) for key in (lambda name: rows[name].median_s, PUBLISHED_MS.get)]
    click.echo("same ranking" if ranking[0] == ranking[1] else f"ranking here: {', '.join(ranking[0])}")
    click.echo(f"{rounds} runs each, {threads} threads, torch {torch.__version__}", err=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Every way to run the published networks, in one interleaved run: same weights, same images, same threads.

    python benchmarks/peers/run.py
    python benchmarks/peers/run.py --peers eager,onnxruntime --models gfnet_12_192 --markdown

Full depth: the network without exits. With exits: the distilled network with the exits of the published NaSC
run, its images leaving there as often as published; how the answers are shared out over the exits is set by
thresholds, so that random weights do. What a weight is worth does not change how long its product takes.
ONNX Runtime needs pip install 'pi-dynn[onnx]', ExecuTorch pip install executorch; what is not installed is
left out and said so.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads its OpenMP

import logging
import warnings

import click
import torch

from pi_dynn import Preprocess, Session, build_bundle
from pi_dynn.clock import PerfClock
from pi_dynn.data.folders import walk_images
from pi_dynn.errors import EngineUnavailable
from pi_dynn.latency.benchmark import measure, peer_variants
from pi_dynn.latency.peers import PEERS, Peer, peers_of, session_peer
from pi_dynn.latency.text import latency_table
from pi_dynn.models import create_model

CLASSES = 10
SIZE = 128
BASE = "gfnet_12_384"  # the published network that everything is compared with
SMALL = "gfnet_12_192"
# Blocks after which the distilled network of the published NaSC run leaves, and of how many images each.
# Source: its log, counts [0, 0, 0, 0, 0, 0, 0, 1080, 0, 1253, 1171, 496] over blocks.
EXITS, COUNTS = [7, 9, 10], [1080, 1253, 1171, 496]


def published_exits(n: int) -> list[int]:
    """Exits of `n` answers in the published shares, evenly mixed."""
    left = [0.0] * len(COUNTS)
    exits = []
    for i in range(n):
        owed = [(i + 1) * count / sum(COUNTS) - had for count, had in zip(COUNTS, left, strict=True)]
        k = owed.index(max(owed))
        left[k] += 1
        exits.append(k)
    return exits


def bundle_of(model: torch.nn.Module, precision: str):
    exits = model.exit_blocks
    labels = [str(i) for i in range(CLASSES)]
    settings = {"exits": exits, "thresholds": [0.5] * len(exits), "labels": labels}
    return build_bundle(model, precision=precision, preprocess=Preprocess(size=SIZE), **settings)


def all_peers(model: torch.nn.Module, names: list[str], threads: int) -> list[Peer]:
    """Eager first, then what is asked for, ours last."""
    int8, fp32 = bundle_of(model, "int8"), bundle_of(model, "fp32")
    peers = []
    for name in names:
        try:
            peers += peers_of(name, model, int8, threads)
        except EngineUnavailable as error:
            click.echo(f"left out: {error}", err=True)
    if not model.exit_blocks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            scripted = torch.jit.freeze(torch.jit.script(model))
        peers.insert(1, Peer("scripted training form, fp32", lambda x, limits: _run(scripted, x), 0))
    peers.append(session_peer("pi_dynn, fp32", Session(fp32, threads=threads)))
    ours = Session(int8, threads=threads)
    return [*peers, session_peer(f"pi_dynn, int8 ({ours.engine})", ours)]


@torch.inference_mode()
def _run(network, x: torch.Tensor) -> int:
    network(x)
    return 0


@click.command()
@click.option("--peers", "names", default=",".join(PEERS), show_default=True)
@click.option("--models", default=f"{BASE},{SMALL}", show_default=True, help="Networks at full depth.")
@click.option("--with-exits/--no-exits", default=True, help="Also the distilled network with the published exits.")
@click.option("--n", "rounds", default=200, show_default=True, help="Answers per variant.")
@click.option("--threads", default=1, show_default=True)
@click.option("--markdown", is_flag=True)
def main(names: str, models: str, with_exits: bool, rounds: int, threads: int, markdown: bool) -> None:
    """Print the table; the speed-up is against the first row, the base network in eager PyTorch."""
    from pi_dynn.cli.options import sample_folder

    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    peer_names = names.split(",")
    preprocess = Preprocess(size=SIZE)
    images = [preprocess(path) for path in walk_images(sample_folder())]
    variants = []
    for name in models.split(","):
        torch.manual_seed(0)
        model = create_model(name, num_classes=CLASSES, image_size=SIZE, exits=None).eval()
        for peer in all_peers(model, peer_names, threads):
            variants += peer_variants(peer, images, None, f"{name}, ")
    if with_exits:
        torch.manual_seed(0)
        settings = {"num_classes": CLASSES, "image_size": SIZE, "distilled": True, "exit_heads": "cls+dist"}
        model = create_model(SMALL, exits=EXITS, **settings).eval()
        for peer in all_peers(model, peer_names, threads):
            variants += peer_variants(peer, images, published_exits(rounds), f"{SMALL} distilled, ")[1:]
    rows = measure(variants, rounds, threads, PerfClock())
    click.echo(latency_table(rows, markdown))
    click.echo(f"{len(images)} images, {rounds} answers each, {threads} threads, torch {torch.__version__}", err=True)


if __name__ == "__main__":
    main()

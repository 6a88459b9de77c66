#!/usr/bin/env python3
"""Images a second of `classify --cluster` with 1, 2, 3 workers of one thread, beside one Session without a cluster.

    python benchmarks/cluster_scaling.py --images 512 --repeats 5

Scheduler, workers and this program share the machine's cores: more workers than cores cannot be faster. Variants take
turns, and each row is the median of its repeats. `--per-task 1,8,32` shows what it costs to send few images at a time.
"""

import itertools
import os
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import click
import distributed

import pi_dynn.assets
from pi_dynn.classify.cluster import ClusterSession, ClusterSettings
from pi_dynn.classify.run import Tally
from pi_dynn.clock import PerfClock
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.runtime.session import Session
from pi_dynn.text import table

SAMPLES = Path(pi_dynn.assets.__path__[0]) / "samples"


@click.command()
@click.option("--images", type=click.IntRange(1), default=512, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--workers", default="1,2,3", show_default=True)
@click.option("--per-task", default="8", show_default=True, help="Images in a task.")
def main(images: int, repeats: int, workers: str, per_task: str) -> None:
    """Print the table."""
    paths = itertools.islice(itertools.cycle(sorted(SAMPLES.iterdir())), images)
    sources = [(str(path), str(path)) for path in paths]
    variants = list(itertools.product(numbers(workers), numbers(per_task), (False, True)))
    rates: dict[tuple, list[float]] = {variant: [] for variant in [None, *variants]}
    session = Session(load_bundle(), threads=1, engine="fp32")
    with ExitStack() as stack:
        addresses = {count: stack.enter_context(cluster_of(count)).scheduler_address for count in numbers(workers)}
        for _ in range(repeats):
            rates[None].append(images_per_s(session, sources))
            for count, size, ship in variants:
                settings = ClusterSettings(images_per_task=size, ship=ship)
                with ClusterSession(addresses[count], load_bundle(), "fp32", 1, settings=settings) as remote:
                    images_per_s(remote, sources[: 4 * size * count])  # every worker has its Session
                    rates[count, size, ship].append(images_per_s(remote, sources))
    alone = statistics.median(rates[None])
    rows = [("one Session, no cluster", "", "", f"{alone:.0f}", "1.00")]
    for (count, size, ship), measured in list(rates.items())[1:]:
        rate = statistics.median(measured)
        rows.append((f"{count} workers", str(size), "bytes" if ship else "paths", f"{rate:.0f}", f"{rate / alone:.2f}"))
    click.echo(f"{os.cpu_count()} cores, {images} images, median of {repeats}")
    click.echo(table(("", "images a task", "sent", "images/s", "of one Session"), rows))


def numbers(text: str) -> list[int]:
    """The numbers of a list with commas."""
    return [int(part) for part in text.split(",")]


def cluster_of(workers: int) -> distributed.LocalCluster:
    """A scheduler with worker processes of one thread."""
    return distributed.LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0")


def images_per_s(session, sources: list[tuple[str, str]]) -> float:
    """Images a second over `sources`, all answered."""
    start_s = time.perf_counter()
    tally = Tally(session, PerfClock())
    answered = sum(1 for _ in tally.count(session.answer_stream(sources)))
    elapsed_s = time.perf_counter() - start_s
    summary = tally.summary()
    if answered != len(sources) or summary.failed:
        raise SystemExit(f"{len(sources)} images, {answered} answers, {summary.failed} failed")
    return answered / elapsed_s


if __name__ == "__main__":
    main()

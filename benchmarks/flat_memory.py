#!/usr/bin/env python3
"""Whether `pi-dynn classify` keeps its memory over a very long list of files.

    python benchmarks/flat_memory.py --n 100000

The sample photographs are named over and over on stdin, and the resident memory of the process is read every
half second. The first tenth of the run counts as start-up. The exit status is 1 where the process failed, lost
an answer, or ended more than --slack above its size after start-up.
"""

import itertools
import subprocess
import sys
import threading
import time

import click
import psutil

from pi_dynn.cli.options import sample_folder
from pi_dynn.data.folders import walk_images


def feed(stream, images: int) -> None:
    """Write `images` paths, one a line, and close the stream."""
    paths = [f"{path}\n" for path in walk_images(sample_folder())]
    with stream:
        stream.writelines(itertools.islice(itertools.cycle(paths), images))


@click.command()
@click.option("--n", "images", default=100_000, show_default=True, help="Files.")
@click.option("--slack", default=0.05, show_default=True, help="Share the memory may grow by after start-up.")
def main(images: int, slack: float) -> None:
    """Print the resident memory over the run."""
    from pi_dynn.text import percent, table

    command = [sys.executable, "-m", "pi_dynn.cli", "classify", "-", "--json"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    threading.Thread(target=feed, args=(process.stdin, images), daemon=True).start()
    watched, memory, answers, due_s = psutil.Process(process.pid), [], 0, 0.0
    started_s = time.perf_counter()
    for line in process.stdout:
        answers += '"label"' in line
        if time.perf_counter() >= due_s:
            memory.append((answers, watched.memory_info().rss))
            due_s = time.perf_counter() + 0.5
    elapsed_s = time.perf_counter() - started_s
    settled = [size for seen, size in memory if seen >= images / 10]
    if process.wait() or answers != images or not settled:
        raise SystemExit(f"classify answered {answers} of {images} files and ended with status {process.returncode}")
    growth = settled[-1] / settled[0] - 1
    rows = [
        ("after start-up", f"{settled[0] / 2**20:.1f}"),
        ("largest", f"{max(settled) / 2**20:.1f}"),
        ("at the end", f"{settled[-1] / 2**20:.1f}"),
    ]
    click.echo(table(("resident memory", "MiB"), rows))
    click.echo(f"{answers} answers in {elapsed_s:.0f} s; memory grew by {percent(growth)} after the first tenth")
    raise SystemExit(growth > slack)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What a busy neighbour does to the latency, with OpenMP threads that sleep and with ones that spin.

    python benchmarks/busy_machine.py

Each setting runs in a process of its own, for libgomp reads its waiting policy once, at start. The neighbour is
one endless Python loop. Two spinning threads on two cores collapse as soon as there is one; sleeping ones do not.
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import click

MEASURE = """
import json, sys
from pi_dynn.cli.classify import sample_folder
from pi_dynn.clock import PerfClock
from pi_dynn.data.folders import walk_images
from pi_dynn.jobs.benchmark import measure, session_variants
from pi_dynn.runtime.session import Session
session = Session(threads=int(sys.argv[1]) or None)
inputs = [session.preprocess.load(path) for path in walk_images(sample_folder())]
rows = measure(session_variants(session, inputs, "x")[:1], int(sys.argv[2]), session.threads, PerfClock())
print(json.dumps(rows[0].to_dict()))
"""


@contextmanager
def neighbours(count: int):
    """`count` processes that never stop computing."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def latency(policy: str, threads: int, rounds: int) -> dict:
    """The latency record of full depth in a fresh process."""
    environment = os.environ | {"OMP_WAIT_POLICY": policy}
    command = [sys.executable, "-c", MEASURE, str(threads), str(rounds)]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@click.command()
@click.option("--n", "rounds", default=100, show_default=True, help="Answers per setting.")
@click.option("--busy", default=1, show_default=True, help="Neighbours.")
@click.option("--spinning/--no-spinning", default=True, help="Also measure OMP_WAIT_POLICY=ACTIVE (slow).")
def main(rounds: int, busy: int, spinning: bool) -> None:
    """Print median and p99 of full depth, quiet and busy, per waiting policy."""
    from pi_dynn.report.text import milliseconds, table

    settings = [("PASSIVE", 0), ("PASSIVE", 1)] + ([("ACTIVE", 0)] if spinning else [])
    rows = []
    for policy, threads in settings:
        quiet = latency(policy, threads, rounds)
        with neighbours(busy):
            crowded = latency(policy, threads, rounds)
        rows.append(
            (
                f"{policy}, {quiet['threads']} threads",
                milliseconds(quiet["median_s"]),
                milliseconds(crowded["median_s"]),
                milliseconds(crowded["p99_s"]),
                f"{crowded['median_s'] / quiet['median_s']:.1f}x",
            )
        )
    click.echo(table(("OMP_WAIT_POLICY", "quiet p50", f"{busy} busy p50", "busy p99", "busy / quiet"), rows))


if __name__ == "__main__":
    main()

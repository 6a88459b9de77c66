#!/usr/bin/env python3
"""What busy neighbours do to the latency, with OpenMP threads that sleep and with ones that spin.

    python benchmarks/busy_machine.py
    python benchmarks/busy_machine.py --busy 1,2,4 --no-spinning

Each setting runs in a process of its own, for libgomp reads its waiting policy once, at start. A neighbour is an
endless Python loop. The first row is what happens by default, PASSIVE and all cores: its median should stay within
three times the quiet one. Two spinning threads on two cores collapse as soon as there is one neighbour.
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import click

MEASURE = """
import json, sys
from pi_dynn.cli.options import sample_folder
from pi_dynn.clock import PerfClock
from pi_dynn.data.folders import walk_images
from pi_dynn.latency.benchmark import measure, session_variants
from pi_dynn.runtime.session import Session
session = Session(threads=int(sys.argv[1]) or None)
inputs = [session.preprocess(path) for path in walk_images(sample_folder())]
rows = measure(session_variants(session, inputs, "x")[:1], int(sys.argv[2]), session.threads, PerfClock())
print(json.dumps(rows[0].to_dict()))
"""
TOLERATED = 3.0  # of the quiet median


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


def latency(policy: str | None, threads: int, rounds: int) -> dict:
    """The latency record of full depth in a fresh process; without a policy the package's own applies."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if policy is None else {"OMP_WAIT_POLICY": policy}
    command = [sys.executable, "-c", MEASURE, str(threads), str(rounds)]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@click.command()
@click.option("--n", "rounds", default=100, show_default=True, help="Answers per setting.")
@click.option("--busy", default="1,2", show_default=True, help="Numbers of neighbours.")
@click.option("--spinning/--no-spinning", default=True, help="Also measure OMP_WAIT_POLICY=ACTIVE (slow).")
@click.option("--markdown", is_flag=True)
def main(rounds: int, busy: str, spinning: bool, markdown: bool) -> None:
    """Print median and p99 of full depth, quiet and busy; exit status 1 if the default collapses."""
    from pi_dynn.text import milliseconds, table

    settings = [("default", None, 0), ("one thread", None, 1)] + ([("spinning", "ACTIVE", 0)] if spinning else [])
    rows, collapsed = [], []
    for name, policy, threads in settings:
        quiet = latency(policy, threads, rounds)
        for count in (int(text) for text in busy.split(",")):
            with neighbours(count):
                crowded = latency(policy, threads, rounds)
            slower = crowded["median_s"] / quiet["median_s"]
            if name == "default" and slower > TOLERATED:
                collapsed.append(count)
            times = (quiet["median_s"], quiet["p99_s"], crowded["median_s"], crowded["p99_s"])
            title = f"{name}, {quiet['threads']} threads"
            rows.append((title, str(count), *(milliseconds(time_s) for time_s in times), f"{slower:.1f}x"))
    headers = ("setting", "neighbours", "quiet p50", "quiet p99", "busy p50", "busy p99", "busy / quiet p50")
    click.echo(table(headers, rows, markdown=markdown))
    sys.exit(1 if collapsed else 0)


if __name__ == "__main__":
    main()

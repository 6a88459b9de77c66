#!/usr/bin/env python3
"""The published latencies and energies as saved runs, so that `pi-dynn report` makes the published table of them.

    python benchmarks/published/make_runs.py runs/
    pi-dynn report runs/*.json

What was published is a mean latency and the steady power while running and idle; a trace with that power in it
gives the figures again by the same road a measured one takes. It measures nothing, and says SIMULATED.
"""

import json
import math
from pathlib import Path

import click
import numpy as np

from pi_dynn.board import BoardSnapshot
from pi_dynn.energy.protocol import Measurement
from pi_dynn.energy.records import EnergyRecording, Subject, TimedPass
from pi_dynn.energy.results import energy_results
from pi_dynn.energy.runs import save_run
from pi_dynn.power import SIMULATED, MeterInfo, Span, Trace

ROWS = json.loads((Path(__file__).parent / "energy.json").read_text(encoding="utf-8"))
TRIALS = 5
WINDOW_S = 10.0
PERIOD_S = 0.02


def published_run(row: dict) -> Measurement:
    """The run behind one row: idle, trials at the published power, idle; without an interval, as none is published."""
    latency_ns = round(row["latency_ms"] * 1e6)
    active_w = row["idle_w"] + row["energy_mj"] / row["latency_ms"]
    n = math.ceil(WINDOW_S * 1e9 / latency_ns)
    labels = ["idle before", *(f"trial {number + 1}" for number in range(TRIALS)), "idle after"]
    spans, now_ns = [], 0
    for label in labels:
        length_ns = round(WINDOW_S * 1e9) if label.startswith("idle") else n * latency_ns
        spans.append(Span(now_ns, now_ns + length_ns, label))
        now_ns += length_ns + 1
    right = round(row["acc1_percent"] / 100 * 1e6)  # of a million, for the printed digits
    trials = [_trial(place, span, n, row["latency_ms"] * 1e-3) for place, span in enumerate(spans[1:-1], start=1)]
    counted = TimedPass(0, None, "", 10**6, 10**6, 1e3 * row["latency_ms"], 1e3 * row["latency_ms"], [10**6],
                        [1e3 * row["latency_ms"]], [right])  # fmt: skip
    recording = EnergyRecording(
        [_subject(row)], [counted], trials, TRIALS, _board(row), _board(row), idle=[0, len(spans) - 1]
    )
    return Measurement(recording, _trace(spans, row["idle_w"], active_w))


def _trial(place: int, span: Span, n: int, latency_s: float) -> TimedPass:
    return TimedPass(0, None, span.label, n, n, span.duration_s, n * latency_s, [n], [n * latency_s], None, place)


def _subject(row: dict) -> Subject:
    return Subject(
        row["model"], model=row["model"], precision="fp32", engine="eager", dataset=row["dataset"], blocks=[11]
    )


def _board(row: dict) -> dict:
    return BoardSnapshot(
        model=row["board"],
        machine="aarch64",
        kernel="",
        python="",
        cores=0,
        governor=None,
        frequency_hz=None,
        frequency_max_hz=None,
        temperature_c=None,
        throttle_bits=None,
        memory_total_bytes=0,
        memory_available_bytes=0,
        load_average=None,
        other_load_percent=0.0,
        omp_num_threads=None,
    )


def _trace(spans: list[Span], idle_w: float, active_w: float) -> Trace:
    """Power that steps at the edges of the trials, with a sample on either side of every step."""
    grid = np.arange(0, spans[-1].t1_ns, round(PERIOD_S * 1e9))
    t_ns = np.unique(np.concatenate([grid, *([span.t0_ns, span.t1_ns] for span in spans)]).astype(np.int64))
    working = np.zeros(len(t_ns), dtype=bool)
    for span in spans[1:-1]:
        working |= (t_ns >= span.t0_ns) & (t_ns <= span.t1_ns)
    info = MeterInfo(
        name="published",
        scope="as published (board, idle subtracted)",
        rails=(),
        resolution_w=0.01,
        nominal_period_s=PERIOD_S,
        measured=False,
        label=SIMULATED,
        window_s=PERIOD_S,
    )
    unknown = np.full(len(t_ns), np.nan)
    flags = np.zeros(len(t_ns), dtype=np.int64)
    return Trace(info, t_ns, np.where(working, active_w, idle_w), None, unknown, unknown, flags, tuple(spans))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Write one saved run per published row to FOLDER."""
    for number, row in enumerate(ROWS):
        measurement = published_run(row)
        save_run(folder / f"{number:02d}.json", measurement, energy_results(*measurement))


if __name__ == "__main__":
    main()

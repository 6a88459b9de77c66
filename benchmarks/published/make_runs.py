#!/usr/bin/env python3
"""The published tables as saved runs, so that `pi-dynn report` makes them again, and what is wrong in print.

    python benchmarks/published/make_runs.py runs/
    pi-dynn report runs/log1/*.json --exits

There is a folder for each of three logs: Jetsons and a Pi 4 on NaSC and PatternNet, an AGX Orin on CIFAR-10, RESISC45
and UCM, and one network more on CIFAR-10. What was published is a mean latency and the steady power while running and
idle; a trace with that power in it gives the figures again by the same road a measured one takes. It measures nothing,
and says SIMULATED.
"""

import json
import math
from pathlib import Path
from typing import Any

import click
import numpy as np

from pi_dynn.board import BoardSnapshot
from pi_dynn.energy.protocol import Measurement
from pi_dynn.energy.records import EnergyRecording, Subject, TimedPass
from pi_dynn.energy.results import energy_results
from pi_dynn.energy.runs import save_run
from pi_dynn.models.presets import Preset, preset_named
from pi_dynn.power import SIMULATED, MeterInfo, Span, Trace, improvement
from pi_dynn.text import table

PRINTED = json.loads((Path(__file__).parent / "printed.json").read_text(encoding="utf-8"))
DATASETS = {"nasc-tg2": "NaSC", "patternnet": "PatternNet", "cifar10": "CIFAR10", "resisc45": "RESISC45", "ucm": "UCM"}
TRIALS = 5
WINDOW_S = 10.0
PERIOD_S = 0.02
OFTEN = 1000
HALF_UP = 1e-9  # of 31.325 %, which no float is, 31.33 % is right
LAST_BLOCK = 11


def _row(printed: dict[str, Any]) -> dict[str, Any]:
    """A printed row with what it is about, as it is used here."""
    preset = preset_named(printed["preset"])
    latency_ms, energy_mj = preset.boards[printed["board"]]
    return {
        "log": printed["log"],
        "board": printed["board"],
        "idle_w": PRINTED["idle_w"][printed["board"]],
        "dataset": DATASETS[preset.layout],
        "model": preset.name.partition("-")[2],
        "preset": preset.name,
        "latency_ms": latency_ms,
        "energy_mj": energy_mj,
        "printed": printed,
    }


ROWS = [_row(printed) for printed in PRINTED["rows"]]
BASES = {(row["board"], row["dataset"]): row["energy_mj"] for row in ROWS if row["model"] == "base"}


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
    trials = [_trial(place, span, n, row["latency_ms"] * 1e-3) for place, span in enumerate(spans[1:-1], start=1)]
    counted = _counted(preset_named(row["preset"]), row["latency_ms"] * 1e-3)
    recording = EnergyRecording(
        [_subject(row)], [counted], trials, TRIALS, _board(row), _board(row), idle=[0, len(spans) - 1]
    )
    return Measurement(recording, _trace(spans, row["idle_w"], active_w))


def _counted(preset: Preset, latency_s: float) -> TimedPass:
    """Where the test images left and how many were right, each counted often, so that this is the longest pass."""
    left = [OFTEN * count for count in preset.left or [OFTEN]]
    n, exits = sum(left), len(left)
    right = [round(preset.accuracy * n)] if exits == 1 else None
    if preset.right is not None:
        right = [OFTEN * count for count in preset.right]
    times = [n * latency_s] if not preset.exits else [0.0] * exits  # those of single exits are not published
    return TimedPass(0, None, "", n, n, n * latency_s, n * latency_s, left, times, right,
                     right=None if right else round(preset.accuracy * n))  # fmt: skip


def _trial(place: int, span: Span, n: int, latency_s: float) -> TimedPass:
    return TimedPass(0, None, span.label, n, n, span.duration_s, n * latency_s, [n], [n * latency_s], None, place)


def _subject(row: dict) -> Subject:
    preset = preset_named(row["preset"])
    return Subject(
        row["model"],
        model=preset.model,
        precision="fp32",
        engine="eager",
        dataset=row["dataset"],
        parameters=preset.parameters,
        blocks=[*preset.exits, LAST_BLOCK] if preset.left or not preset.exits else [],
        thresholds=preset.thresholds or [],
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


def faults() -> list[tuple[str, str, str, str, str]]:
    """What is wrong in print: where it stands, what, as printed, corrected, and how it came about."""
    found: dict[tuple[str, ...], None] = {}

    def check(where: str, what: str, printed: str, value: float, unit: str) -> None:
        digits = len(printed.partition(".")[2])
        correct = f"{value + HALF_UP:.{digits}f}"
        if correct != printed:
            cut = abs(float(printed) - value) < 10.0**-digits
            found[where, what, f"{printed}{unit}", f"{correct}{unit}", "cut off, not rounded" if cut else "wrong"] = (
                None
            )

    for row in ROWS:
        printed, preset = row["printed"], preset_named(row["preset"])
        where = f"log {row['log']}, {row['dataset']} {row['model']}"
        if printed["dataset"] != row["dataset"]:
            found[where, "data set", printed["dataset"], row["dataset"], "wrong"] = None
        width = preset.model.rpartition("_")[2]
        if "-12-" in printed["name"] and f"-12-{width}" not in printed["name"]:
            found[where, "name", printed["name"], printed["name"][:-3] + width, "wrong"] = None
        check(where, "parameters", printed["parameters"], preset.parameters / 1e6, " M")
        check(where, "acc@1", printed["acc1"], 100 * preset.accuracy, "")
        if printed["improve"] is not None:
            better = improvement(BASES[row["board"], row["dataset"]], row["energy_mj"])
            check(f"{where}, {row['board']}", "improve", printed["improve"], 100 * better, " %")
    for printed in PRINTED["exits"]:
        preset = preset_named(printed["preset"])
        blocks, right = [*preset.exits, LAST_BLOCK], preset.right or []
        for k, block in enumerate(blocks):
            where = f"log 1, {DATASETS[preset.layout]} {preset.name.partition('-')[2]}, block {block}"
            check(where, "exit rate", printed["rates"][k], 100 * preset.left[k] / sum(preset.left), " %")
            check(where, "exit accuracy", printed["accuracies"][k], 100 * right[k] / preset.left[k], "")
    found["log 2, every sweep", "total_GFLOPs", "187.99G to 247.00G", "188.0 M to 247.0 M", "wrong unit"] = None
    return sorted(found, key=lambda fault: not fault[-1].startswith("wrong"))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Write one saved run per published row to FOLDER/log1 to log3, and print what is wrong in print."""
    for number, row in enumerate(ROWS):
        measurement = published_run(row)
        save_run(folder / f"log{row['log']}" / f"{number:02d}.json", measurement, energy_results(*measurement))
    click.echo(table(("where", "what", "printed", "correct", "how"), faults(), left=2))


if __name__ == "__main__":
    main()

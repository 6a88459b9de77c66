#!/usr/bin/env python3
"""The published line profiles beside a profile of ours, each as a share of a block's time.

    pi-dynn profile --inside --no-exit --json > profile.json
    python benchmarks/published/line_tables.py profile.json

The published times are of the eager network under a line profiler, those of ours of the scripted network with marks
inside, on whatever machine the profile is of: only shares compare.
Source: line profiles of the distilled early-exit 12-192 at 128 px (Raspberry Pi 4; Jetson AGX Orin and Orin Nano, on
their GPUs), and of a block of the 12-192 on the AGX Orin's GPU and CPU.
"""

import json
from pathlib import Path

import click

from pi_dynn.latency.records import Profile
from pi_dynn.stats import median
from pi_dynn.text import percent, table

BOARDS = ("Raspberry Pi 4", "AGX Orin", "Orin Nano")
STEPS_MS = {  # milliseconds of one hit on each board
    "patch embedding": (5.81, 0.48, 1.26),
    "tokens": (0.68, 0.17, 0.19),
    "position": (0.18, 0.07, 0.07),
    "block": (14.40, 1.28, 1.37),
    "exit norm": (0.45, 0.10, 0.11),
    "head": (0.56, 0.14, 0.16),
    "gate": (2.43, 0.61, 0.67),
}
BLOCK_SHARES = {  # of a block on the AGX Orin's GPU and CPU
    "norm": (0.087, 0.052),
    "filter": (0.397, 0.306),
    "norm 2": (0.121, 0.056),
    "MLP": (0.346, 0.550),
    "residual": (0.049, 0.036),
}


@click.command(help=__doc__.splitlines()[0])
@click.argument("profile", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(profile: Path) -> None:
    result = Profile.from_dict(json.loads(profile.read_text(encoding="utf-8")))
    click.echo(tables(result))


def tables(profile: Profile) -> str:
    """Both tables; the second one of a profile with the operations inside its steps only."""
    block_s = sum(_hit_s(profile, kind) for kind in ("filter", "MLP"))
    rows = []
    for step, times_ms in STEPS_MS.items():
        ours_s = block_s if step == "block" else _hit_s(profile, step)
        shares = [one / block for one, block in zip(times_ms, STEPS_MS["block"], strict=True)]
        rows.append((step, *map(percent, shares), percent(ours_s / block_s) if ours_s else "-"))
    text = table(("step, of a block's time", *BOARDS, "this profile"), rows, markdown=True)
    ours = {
        "norm": _hit_s(profile, "filter", "norm"),
        "filter": sum(_hit_s(profile, "filter", name) for name in ("forward transform", "weight", "inverse transform")),
        "norm 2": _hit_s(profile, "MLP", "norm"),
        "MLP": sum(_hit_s(profile, "MLP", name) for name in ("linear 1", "GELU", "linear 2")),
        "residual": _hit_s(profile, "MLP", "residual"),
    }
    if any(ours.values()):
        rows = [(name, *map(percent, BLOCK_SHARES[name]), percent(ours[name] / block_s)) for name in BLOCK_SHARES]
        text += "\n\n" + table(
            ("inside a block", "AGX Orin, GPU", "AGX Orin, CPU", "this profile"), rows, markdown=True
        )
    return text


def _hit_s(profile: Profile, kind: str, operation: str | None = None) -> float:
    """Seconds of one hit of a kind of step, the median of all its blocks; 0 where there is none."""
    times_s: dict[int | None, float] = {}
    for step in profile.steps:
        if step.kind == kind and (operation is None or step.operation == operation):
            times_s[step.block_index] = times_s.get(step.block_index, 0.0) + step.per_hit_s
    return median(list(times_s.values())) if times_s else 0.0


if __name__ == "__main__":
    main()

"""How often scripting a sound network fails because an object has the place of an operator that torch freed.

Each process fills its memory at random, scripts, imports torch.ao, and scripts small networks for a few seconds: once
as torch does it, once as pi_dynn does (pi_dynn/deploy/scripting.py).

    python benchmarks/scripting_deaths.py --processes 14
"""

import gc
import importlib
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import click
import torch
from torch import nn

from pi_dynn.deploy.scripting import script

SCRIPTS: dict[str, Callable[[nn.Module], Any]] = {"torch": torch.jit.script, "pi_dynn": script}


def network() -> nn.Module:
    """Eight small convolutions, whose methods and attributes are looked up while they are scripted."""
    return nn.Sequential(*[nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU6()) for _ in range(8)])


def scripted_until(seconds: float, by: str, seed: int) -> str:
    """How many networks were scripted, and the error if one could not be."""
    rng = random.Random(seed)
    objects: list[Any] = [[rng.random()] * rng.randrange(1, 20) for _ in range(rng.randrange(200_000))]
    for _ in range(3):
        torch.jit.script(network())
    del objects[::2]
    importlib.import_module("torch.ao.quantization.quantize_fx")  # the failure needs it after the first scripting
    del objects[::3]
    gc.collect()
    done, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        objects.append([torch.zeros(1) for _ in range(50)])
        try:
            SCRIPTS[by](network())
        except RuntimeError as error:
            return f"failed after {done}: {str(error).strip().splitlines()[0]}"
        done += 1
        if done % 5 == 0:
            del objects[::2]
    return f"{done} scripted"


@click.command()
@click.option("--processes", default=14, show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="Of scripting in each process.")
@click.option("--one", type=(click.Choice(list(SCRIPTS)), int), hidden=True)
def main(processes: int, seconds: float, one: tuple[str, int] | None) -> None:
    """Print what came of each process, and how many failed."""
    if one is not None:
        click.echo(scripted_until(seconds, *one))
        return
    for by in SCRIPTS:
        failed = 0
        for seed in range(1, processes + 1):
            command = [sys.executable, __file__, "--seconds", str(seconds), "--one", by, str(seed)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
            failed += said.startswith("failed")
            click.echo(f"{by}, seed {seed}: {said}")
        click.echo(f"{by}: {failed} of {processes} processes failed")


if __name__ == "__main__":
    main()

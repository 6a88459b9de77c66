#!/usr/bin/env python3
"""Three exact forms of small-kernel aggregation, timed in turns on the maps of an LSNet.

    python benchmarks/ska_forms.py --size lsnet_b

`shifted` is what pi_dynn.models.ska runs: nine views of one padded map. `unfold` copies every 3 x 3 window, nine
times the map. `windows` reads the windows through strides, and lets einsum turn them into a batched product.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads its OpenMP

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from pi_dynn.clock import PerfClock
from pi_dynn.latency.benchmark import Variant, measure
from pi_dynn.latency.text import latency_table
from pi_dynn.models.lsnet import KERNEL_CHANNELS, SIZES, STRIDE
from pi_dynn.models.ska import SmallKernelAggregation


def unfold(x: Tensor, kernels: Tensor) -> Tensor:
    """Every window copied out, times the kernels: x (B, C, H, W), kernels (B, G, 9, H, W) -> (B, C, H, W)."""
    B, C, H, W = x.shape
    G = kernels.shape[1]
    windows = F.unfold(x, 3, padding=1).view(B, C // G, G, 9, H, W)
    return (windows * kernels.unsqueeze(1)).sum(3).view(B, C, H, W)


def windows(x: Tensor, kernels: Tensor) -> Tensor:
    """Windows as a strided view of the padded map, contracted by einsum."""
    B, C, H, W = x.shape
    G = kernels.shape[1]
    views = F.pad(x, [1, 1, 1, 1]).unfold(2, 3, 1).unfold(3, 3, 1).view(B, C // G, G, H, W, 3, 3)
    return torch.einsum("brghwij,bgijhw->brghw", views, kernels.view(B, G, 3, 3, H, W)).reshape(B, C, H, W)


FORMS = {"shifted": SmallKernelAggregation(), "unfold": unfold, "windows": windows}


@click.command()
@click.option("--size", type=click.Choice(sorted(SIZES)), default="lsnet_b", show_default=True)
@click.option("--image-size", default=224, show_default=True)
@click.option("--n", "rounds", default=200, show_default=True, help="Runs per form and map.")
@click.option("--threads", default=1, show_default=True)
@click.option("--markdown", is_flag=True)
@torch.inference_mode()
def main(size: str, image_size: int, rounds: int, threads: int, markdown: bool) -> None:
    """Time the forms on the maps of the three stages that aggregate."""
    torch.set_num_threads(threads)
    side = image_size // STRIDE
    for dim, depth in list(zip(SIZES[size].dims, SIZES[size].depths, strict=True))[:3]:
        if depth > 1:
            x, kernels = torch.randn(1, dim, side, side), torch.randn(1, dim // KERNEL_CHANNELS, 9, side, side)
            variants = [
                Variant(name, "none", lambda i, form=form, x=x, kernels=kernels: form(x, kernels))
                for name, form in FORMS.items()
            ]
            rows = measure(variants, rounds, threads, PerfClock())
            click.echo(f"{dim} channels, {side} x {side}\n{latency_table(rows, markdown)}\n")
        side = (side + 1) // 2
    click.echo(f"{size} at {image_size} px, {rounds} runs each, {threads} threads, torch {torch.__version__}", err=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How close linear attention comes to softmax attention with the same weights, kernel by kernel.

    python scripts/attention_similarity.py
    python scripts/attention_similarity.py --seed 42 --resolution 8,8 --batch-size 16 --kernel softplus

The published figures are those of freshly initialised weights and noise of the same seed. With --kernel the line is the
published one.

Source: suous/RecNeXt, lsnet/README.md and lsnet/model/profile.py.
"""

import click
import torch
from torch import Tensor

from pi_dynn.models.linear_attention import LinearAttention
from pi_dynn.text import table

PUBLISHED = {"softplus": 0.996636, "elu": 0.995216, "relu": 0.994811}
PUBLISHED_AT = (42, (8, 8), 16, 64)  # seed, resolution, batch size and channels of those


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two outputs of the same shape, each taken as one vector."""
    return float(torch.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


def height_and_width(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, int]:
    """Two numbers, as in 8,8. Raises: click.BadParameter."""
    try:
        height, width = map(int, text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: give height and width, as 8,8") from error
    return height, width


@click.command()
@click.option("--seed", default=42, show_default=True)
@click.option("--resolution", default="8,8", show_default=True, callback=height_and_width, metavar="H,W")
@click.option("--batch-size", default=16, show_default=True)
@click.option("--dim", default=64, show_default=True, help="Channels.")
@click.option("--kernel", type=click.Choice(list(PUBLISHED)), help="Only this one. [default: all]")
@torch.inference_mode()
def main(seed: int, resolution: tuple[int, int], batch_size: int, dim: int, kernel: str | None) -> None:
    """Print the cosine similarity of each kernel's output to that of softmax attention."""
    torch.manual_seed(seed)
    x = torch.randn(batch_size, dim, *resolution)
    softmax = LinearAttention(dim, grouped=False, kernel="softmax", norm=False)
    expected, found = softmax(x), {}
    for name in PUBLISHED if kernel is None else (kernel,):
        attention = LinearAttention(dim, grouped=False, kernel=name, norm=False)
        attention.load_state_dict(softmax.state_dict())
        found[name] = cosine(attention(x), expected)
    if kernel is not None:
        click.echo(f"Cosine Similarity: {found[kernel]:.6f}")
        return
    same = (seed, resolution, batch_size, dim) == PUBLISHED_AT
    rows = [(name, f"{value:.6f}", f"{PUBLISHED[name]:.6f}" if same else "-") for name, value in found.items()]
    click.echo(table(("kernel", "cosine to softmax", "published"), rows))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How close linear attention comes to softmax attention with the same weights, kernel by kernel.

    python scripts/attention_similarity.py

The published figures are those of freshly initialised weights and noise of the same seed.
"""

import click
import torch
from torch import Tensor

from pi_dynn.models.linear_attention import LinearAttention
from pi_dynn.text import table

PUBLISHED = {"softplus": 0.996636, "elu": 0.995216, "relu": 0.994811}


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two outputs of the same shape, each taken as one vector."""
    return float(torch.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


@click.command()
@click.option("--seed", default=42, show_default=True)
@click.option("--side", default=8, show_default=True, help="Height and width of the feature map.")
@click.option("--batch-size", default=16, show_default=True)
@click.option("--dim", default=64, show_default=True, help="Channels.")
@torch.inference_mode()
def main(seed: int, side: int, batch_size: int, dim: int) -> None:
    """Print the cosine similarity of each kernel's output to that of softmax attention."""
    torch.manual_seed(seed)
    x = torch.randn(batch_size, dim, side, side)
    softmax = LinearAttention(dim, grouped=False, kernel="softmax", norm=False)
    expected, rows = softmax(x), []
    for kernel, published in PUBLISHED.items():
        attention = LinearAttention(dim, grouped=False, kernel=kernel, norm=False)
        attention.load_state_dict(softmax.state_dict())
        rows.append((kernel, f"{cosine(attention(x), expected):.6f}", f"{published:.6f}"))
    click.echo(table(("kernel", "cosine to softmax", "published"), rows))


if __name__ == "__main__":
    main()

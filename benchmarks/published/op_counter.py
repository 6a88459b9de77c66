#!/usr/bin/env python3
"""The op counter behind published GFNet-Dynn tables, errors included, for comparison only.

    python benchmarks/published/op_counter.py gfnet_12_384 --image-size 256 --classes 45

Source: KaHimm/GFNet-Dynn, dynn/op_counter.py, after networkslab/dynn, src/models/op_counter.py.

Its figures were printed as "GFLOPs" and are millions. What it gets wrong, one constant or line each below:

1. a linear layer is counted for a batch of one and for ONE token, however many there are;
2. the filter counts as if the tokens were its channels, on a grid of 11 x 18 for every network;
3. a GELU costs as much as 8 multiplications, which makes it outweigh the linear layers;
4. matrix products count 2 (FLOPs), norms 2.5 per element and gates by a formula of their own;
5. with exits, the final norm runs after every block, exit or not, and once more at the end.

A published figure is the mean over a test set: `published_table(model).mean(counts) / 1e6`.
"""

import math

import click
import torch
from torch import nn

from pi_dynn.errors import ModelError
from pi_dynn.models.gfnet import GFNet
from pi_dynn.models.mac_table import LayerMacs, MacTable, build_table
from pi_dynn.models.registry import create_model

FLOPS_PER_MAC = 2
FILTER_GRID = (11, 18)  # that of 198 tokens, a distilled network at 224 px, whatever the network
OPERATIONS_PER_GELU = 4 * FLOPS_PER_MAC
OPERATIONS_PER_NORM = 2.5


def published_table(model: nn.Module) -> MacTable:
    """The operations of an isotropic GFNet by the published counter, cumulative per exit.

    Raises: ModelError for any other network.
    """
    if not isinstance(model, GFNet):
        raise ModelError(f"the published op counter knows no {type(model).__name__}: use pi_dynn.count_macs")
    blocks = [*model.exit_blocks, model.depth - 1]
    return build_table(model.name, model.image_size, "published op counter", blocks, published_layers(model))


def published_layers(model: GFNet) -> list[LayerMacs]:
    """The operations of every layer by the published counter."""
    N, C = model.pos_embed.shape[1:]
    norm = OPERATIONS_PER_NORM * N * C
    rows: list[LayerMacs] = []

    def add(name: str, kind: str, operations: float, is_check: bool = False) -> None:
        rows.append(LayerMacs(name, kind, operations, exit_index, is_check))

    exit_index = 0
    projection = model.patch_embed.proj
    add("patch_embed.proj", "Conv2d", FLOPS_PER_MAC * projection.weight.numel() * model.patch_embed.num_patches)
    for index, block in enumerate(model.blocks):
        prefix = f"blocks.{index}"
        add(f"{prefix}.norm1", "LayerNorm", norm)
        add(f"{prefix}.filter", "GlobalFilter", filter_operations(N))
        add(f"{prefix}.norm2", "LayerNorm", norm)
        add(f"{prefix}.mlp.fc1", "Linear", linear_operations(block.mlp.fc1))
        add(f"{prefix}.mlp.act", "GELU", OPERATIONS_PER_GELU * N * block.mlp.fc1.out_features)
        add(f"{prefix}.mlp.fc2", "Linear", linear_operations(block.mlp.fc2))
        if model.exit_blocks:
            add("norm", "LayerNorm", norm)
        if index in model.exit_blocks:
            k = model.exit_blocks.index(index)
            heads = ["intermediate_heads"] + ["intermediate_heads_dist"] * model.exit_reads_dist
            for head in heads:
                add(f"{head}.{k}", "Linear", linear_operations(getattr(model, head)[k]), is_check=True)
            add(f"gates.{k}", "LearnableUncertaintyGate", gate_operations(model.num_classes), is_check=True)
            exit_index += 1
    add("norm", "LayerNorm", norm)
    for head in ["head"] + ["head_dist"] * model.distilled:
        add(head, "Linear", linear_operations(getattr(model, head)))
    return rows


def linear_operations(layer: nn.Linear) -> int:
    """One token's share, bias included, taken for the whole layer."""
    return FLOPS_PER_MAC * layer.weight.numel() + layer.out_features


def filter_operations(tokens: int) -> float:
    """Two transforms at 5 n log2(n) and 6 per complex product, once per TOKEN instead of per channel."""
    a, b = FILTER_GRID
    n = a * b
    return tokens * (10 * n * math.log2(n) + 6 * a * (b / 2 + 1))


def gate_operations(classes: int) -> int:
    """Largest probability 1, margin 1, entropy 2 and the entropy of squares 5 per class; linear layer 5."""
    return 9 * classes + 6


@click.command()
@click.argument("name")
@click.option("--image-size", default=224, show_default=True)
@click.option("--classes", default=10, show_default=True)
@click.option("--distilled", is_flag=True, help="With a distillation token, and exits that read both tokens.")
def main(name: str, image_size: int, classes: int, distilled: bool) -> None:
    """Print the published figure, in millions, at every exit of the network NAME."""
    heads = "cls+dist" if distilled else "cls"
    with torch.device("meta"):
        model = create_model(
            name, num_classes=classes, image_size=image_size, exits="all", distilled=distilled, exit_heads=heads
        )
    for answer in published_table(model).exits:
        click.echo(f"block {answer.block_index}: {answer.macs / 1e6:.4f}")


if __name__ == "__main__":
    main()

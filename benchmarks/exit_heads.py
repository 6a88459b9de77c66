#!/usr/bin/env python3
"""What exits of EfficientNet-Lite0 know with and without widening, before any block is trained: a linear probe.

    python benchmarks/exit_heads.py ucm --split calibration/ucm_split.json

Heads alone are trained, as `learn` begins, on ImageNet's features of the part `train`; the part `calibrate` is counted.
"""

from dataclasses import replace
from pathlib import Path

import click
import torch

from pi_dynn.cli.options import open_part
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.models.efficientnet_lite import EXPANDED
from pi_dynn.models.pretrained import known_pretrained, load_pretrained
from pi_dynn.models.registry import create_model
from pi_dynn.text import percent, table
from pi_dynn.train.batches import Order, TensorBatches
from pi_dynn.train.data import held_out_tensors
from pi_dynn.train.engine import RunContext, Trainer
from pi_dynn.train.learn.learning import HEADS_RECIPE
from pi_dynn.train.learn.probe import Probe, head_inputs

NETWORK = "efficientnet_lite0"
BLOCKS = (2, 3, 4, 5, 7, 8, 10)
KINDS = {"cls": "pooled", EXPANDED: "widened first"}


@click.command()
@click.argument("dataset", type=click.Path(exists=True, path_type=Path))
@click.option("--split", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--image-size", default=96, show_default=True)
@click.option("--epochs", default=60, show_default=True)
def main(dataset: Path, split: Path, image_size: int, epochs: int) -> None:
    """Print the accuracy of every exit with both kinds of head."""
    known = known_pretrained(NETWORK).preprocess
    preprocess = Preprocess(size=image_size, mean=known.mean, std=known.std)
    (x, labels), (held_x, held_labels) = (
        held_out_tensors(open_part(dataset, split, part), preprocess) for part in ("train", "calibrate")
    )
    columns = {}
    for kind, title in KINDS.items():
        torch.manual_seed(0)
        classes = int(labels.max()) + 1
        model = create_model(
            NETWORK, num_classes=classes, image_size=image_size, exits=list(BLOCKS), exit_heads=kind
        ).eval()
        load_pretrained(model)
        model.start_exits()
        features, held_out = head_inputs(model, x), head_inputs(model, held_x)
        stage = Probe(model, (held_out, held_labels))
        batches = TensorBatches((labels, *features), Order(len(labels), HEADS_RECIPE.batch_size, 0))
        fitted = Trainer(stage, batches, replace(HEADS_RECIPE, epochs=epochs), RunContext()).run()
        answers = fitted.model.eval()(held_out)
        columns[title] = [float((logits.argmax(1) == held_labels).float().mean()) for logits in answers]
    rows = [(f"block {block}", *(percent(column[k]) for column in columns.values())) for k, block in enumerate(BLOCKS)]
    click.echo(table(("exit after", *columns), rows, markdown=True))


if __name__ == "__main__":
    main()

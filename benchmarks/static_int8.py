#!/usr/bin/env python3
"""Which networks of convolutions have a static int8 form, how far it is off fp32, and what it saves.

    python benchmarks/static_int8.py
    python benchmarks/static_int8.py resnet18 mobilenet_v2 --image-size 224
    python benchmarks/static_int8.py 'mobilenet*' --data ucm --steps 60
    python benchmarks/static_int8.py --checkpoint branchynet.safetensors --calibrate CALIBRATE --test TEST

Without --data and a checkpoint weights are random, norms set by what runs through them, and images are noise: that
shows what can be quantised and what qnnpack computes rightly; whether a network still answers well, only trained
weights show. With --data networks are trained for some steps on its images, from pretrained weights where those are
here, and answers on other images of it are compared. With a checkpoint (its network comes from a card or --model)
answers on real images are compared.
"""

import statistics
import sys
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pi_dynn import Preprocess, Session, build_bundle, create_model, list_models
from pi_dynn.clock import PerfClock
from pi_dynn.data.layouts import open_data
from pi_dynn.deploy.export import ExportSettings, export_checkpoint
from pi_dynn.errors import PiDynnError
from pi_dynn.models.pretrained import load_pretrained
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.engine_choice import relative_error
from pi_dynn.runtime.manifest import INT8_STATIC

CLASSES = 10
OWN_SIZES = {"b_lenet": 28, "b_alexnet": 32, "b_resnet_110": 32, "branchynet": 32}  # they have no other
CALIBRATION, TEST = 64, 64
TRAINED_ON = 400
RUNS = 15


def network(name: str, image_size: int) -> nn.Module:
    """The network with an exit in its middle, its norms set by what noise makes of its weights."""
    torch.manual_seed(0)
    size = OWN_SIZES.get(name, image_size)
    depth = create_model(name, num_classes=CLASSES, image_size=size).depth
    model = create_model(name, num_classes=CLASSES, image_size=size, exits=[depth // 2 - 1 if depth > 2 else 0])
    return with_norms_of(model, (torch.randn(16, 3, size, size) for _ in range(4)))


def real_images(root: Path, size: int) -> tuple[Tensor, list[int], list[str]]:
    """The first images of a folder of class folders in mixed order, normalised, with labels and classes."""
    data = open_data(root).part("test")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = data.subset(order[: TRAINED_ON + CALIBRATION + TEST])
    preprocess = Preprocess(size=size)
    images = torch.stack([preprocess(chosen.source(i)) for i in range(len(chosen))])
    return images, list(chosen.labels), list(data.classes)


def trained(name: str, images: Tensor, labels: list[int], classes: int, steps: int) -> nn.Module:
    """The network, an exit in its middle, after `steps` of 16 images each."""
    torch.manual_seed(0)
    depth = create_model(name, num_classes=classes, image_size=images.shape[-1]).depth
    model = create_model(name, num_classes=classes, image_size=images.shape[-1], exits=[depth // 2 - 1])
    with suppress(PiDynnError):  # without a connection, or none known
        load_pretrained(model)
    optimizer, target = torch.optim.AdamW(model.parameters(), 1e-3), torch.tensor(labels)
    for _ in range(steps):
        batch = torch.randint(len(images), (16,))
        answers = model.train().forward_exits(images[batch])
        loss = sum(F.cross_entropy(logits, target[batch]) for _, logits, _ in answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return with_norms_of(model, images.split(16))


def with_norms_of(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """`model` in evaluation, with the statistics of its norms those of all `batches`."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
            module.train()
    with torch.no_grad():
        for batch in batches:
            model.forward_exits(batch)
    return model.eval()


def bundles(model: nn.Module, images: Tensor) -> tuple[Bundle, Bundle]:
    """The network in fp32 and in static int8."""
    given = {
        "exits": model.exit_blocks,
        "thresholds": [0.5] * len(model.exit_blocks),
        "labels": [str(i) for i in range(model.num_classes)],
        "preprocess": Preprocess(size=model.image_size),
    }
    wide = build_bundle(model, precision="fp32", **given)
    return wide, build_bundle(model, precision=INT8_STATIC, calibration=images, **given)


def compared(wide: Bundle, narrow: Bundle, images: Tensor, labels: list[int] | None) -> str:
    """A row: error and agreement of the last exit, accuracy where labels are known, speed, size, what stays fp32."""
    sessions = [Session(bundle, threads=1) for bundle in (wide, narrow)]
    answers = [
        [torch.cat(exits) for exits in zip(*(session.forward_all(x) for x in images.split(16)), strict=True)]
        for session in sessions
    ]
    error = max(relative_error([b], [a]) for a, b in zip(*answers, strict=True))
    agree = min(float((a.argmax(1) == b.argmax(1)).float().mean()) for a, b in zip(*answers, strict=True))
    times: list[list[int]] = [[], []]
    for _ in range(RUNS):  # in turns, so that a busy moment hits both
        for session, taken in zip(sessions, times, strict=True):
            start_ns = PerfClock().now_ns()
            session.classify(images[0], thresholds=2.0)
            taken.append(PerfClock().now_ns() - start_ns)
    faster = statistics.median(times[0]) / statistics.median(times[1])
    stages_in_fp32 = narrow.manifest.notes["static_int8"]["kept_in_fp32"]
    row = f"error {error:6.1%}  same answer {agree:6.1%}  {faster:4.1f} times as fast on {sessions[1].engine}"
    row += f", {len(wide.data) / len(narrow.data):.1f} times smaller"
    if labels is not None:
        right = [float((exits[-1].argmax(1) == torch.tensor(labels)).float().mean()) for exits in answers]
        row += f"; accuracy at full depth {right[0]:.2%} in fp32, {right[1]:.2%} in int8"
    return row + (f"; in fp32: {', '.join(stages_in_fp32)}" if stages_in_fp32 else "")


def of_checkpoint(path: Path, settings: dict, calibrate: Path, test: Path) -> str:
    """The row of a trained network, by images of class folders in the order of its labels."""
    wide = export_checkpoint(path, ExportSettings(precision="fp32", **settings))
    narrow = export_checkpoint(path, ExportSettings(precision=INT8_STATIC, data=calibrate, **settings))
    preprocess, data = wide.manifest.preprocess, open_data(test).part("test")
    images = torch.stack([preprocess(data.source(i)) for i in range(len(data))])
    return f"{len(data)} images: " + compared(wide, narrow, images, data.labels)


def row_of(name: str, image_size: int, data: Path | None, steps: int) -> str:
    """The row of a network trained on real images, or of random weights. Raises PiDynnError if it has no int8."""
    if data is None:
        model, labels = network(name, image_size), None
        images = torch.randn(CALIBRATION + TEST, 3, model.image_size, model.image_size)
    else:
        images, labels, classes = real_images(data, OWN_SIZES.get(name, image_size))
        model = trained(name, images[:TRAINED_ON], labels[:TRAINED_ON], len(classes), steps)
        images, labels = images[TRAINED_ON:], labels[TRAINED_ON + CALIBRATION :]
    wide, narrow = bundles(model, images[:CALIBRATION])
    return compared(wide, narrow, images[CALIBRATION:], labels)


@click.command()
@click.argument("patterns", nargs=-1)
@click.option("--image-size", default=64, show_default=True)
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Class folders to train on for --steps.")
@click.option("--steps", default=60, show_default=True, help="Of 16 images, with --data.")
@click.option("--checkpoint", type=click.Path(exists=True, path_type=Path), help="Trained weights to compare with.")
@click.option("--model", help="Network the weights belong to, if they have no card.")
@click.option("--unit-pixels", is_flag=True, help="The network was trained on pixels of 0..1, not normalised.")
@click.option("--calibrate", type=click.Path(exists=True, path_type=Path), help="Class folders to set ranges with.")
@click.option("--test", type=click.Path(exists=True, path_type=Path), help="Class folders to compare answers on.")
def main(patterns, image_size, data, steps, checkpoint, model, unit_pixels, calibrate, test) -> None:
    """Quantise every network of convolutions called like one of PATTERNS, or all, or the one of a checkpoint."""
    if checkpoint is not None:
        settings = {"model": model, "image_size": OWN_SIZES.get(model, image_size)} if model else {}
        settings |= {"mean": (0.0,) * 3, "std": (1.0,) * 3} if unit_pixels else {}
        click.echo(f"{checkpoint.name}: {of_checkpoint(checkpoint, settings, calibrate, test)}")
        return
    for name in list_models():
        if name.startswith("gfnet") or (patterns and not any(fnmatch(name, pattern) for pattern in patterns)):
            continue
        try:
            click.echo(f"{name:28} {row_of(name, image_size, data, steps)}")
        except PiDynnError as error:
            click.echo(f"{name:28} {error}")


if __name__ == "__main__":
    sys.exit(main())

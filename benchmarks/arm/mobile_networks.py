#!/usr/bin/env python3
"""Instructions and predicted milliseconds of mobile networks in int8 at full depth, in every runtime: a table.

    scripts/arm_emulation.sh peers && scripts/arm_emulation.sh litert
    python benchmarks/arm/mobile_networks.py       # minutes a line; what was counted is kept
    python benchmarks/arm/mobile_networks.py --network mobilenet_v2 --size 128 --runtime LiteRT

One thread, one image, random weights: what a weight is worth changes no count. It says nothing of accuracy. TorchScript
runs on qnnpack, as there are int8 convolutions.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from unittest.mock import patch

import click
import torch
from instructions import CLASSES

from pi_dynn import Preprocess, build_bundle, create_model
from pi_dynn.deploy import builder, onnx
from pi_dynn.deploy.litert import litert_bundle
from pi_dynn.errors import ModelError
from pi_dynn.latency.boards import board_model, predict_exits
from pi_dynn.latency.emulated import count_exits
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.manifest import INT8_STATIC
from pi_dynn.text import milliseconds

NETWORKS = ("mobilenet_v3_small", "mobilenet_v3_large", "mobilenet_v2", "efficientnet_lite0")
SIZES = (128, 224)
RUNTIMES: dict[str, Callable[[Bundle], Bundle]] = {
    "LiteRT": litert_bundle,
    "ONNX Runtime": onnx.onnx_bundle,
    "TorchScript": lambda bundle: bundle,
}
BOARDS = ("pi4", "pi5")
IMAGES = 4


def static_bundle(name: str, size: int) -> Bundle:
    """The network `name` in static int8 for TorchScript, without exits; its random weights are always the same."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=CLASSES, image_size=size, exits=[]).eval()
    images = torch.randn(IMAGES, 3, size, size)
    builder.let_norms_see(model, images)
    return build_bundle(
        model,
        exits=[],
        thresholds=[],
        precision=INT8_STATIC,
        labels=[str(k) for k in range(CLASSES)],
        preprocess=Preprocess(size=size),
        calibration=images,
    )


def rows(name: str, size: int, runtimes: Sequence[str]) -> Iterator[str]:
    """A line of Markdown for each runtime, as soon as it has been counted; what has no form there says so."""
    bundle = static_bundle(name, size)
    for runtime in runtimes:
        try:
            made = RUNTIMES[runtime](bundle)
        except ModelError as error:
            yield f"| {name} | {size} px | {runtime} | {str(error).split(':')[0]} | | | |"
            continue
        cells = []
        for board in BOARDS:
            model = board_model(board)
            counts = count_exits(made, model.board.core)
            predicted = predict_exits(model, counts, [1])
            [instructions] = [one.counts["instructions"] for one in counts if one.engine == predicted.engine]
            cells += [f"{instructions / 1e6:.1f}", milliseconds(predicted.mean_s)]
        yield f"| {name} | {size} px | {runtime} | {' | '.join(cells)} |"


@click.command()
@click.option("--network", "networks", multiple=True, type=click.Choice(NETWORKS), help="Default: all.")
@click.option("--size", "sizes", multiple=True, type=int, help="Image size in pixels; default: 128 and 224.")
@click.option("--runtime", "runtimes", multiple=True, type=click.Choice(list(RUNTIMES)), help="Default: all.")
def main(networks: tuple[str, ...], sizes: tuple[int, ...], runtimes: tuple[str, ...]) -> None:
    """Count mobile networks on emulated Arm cores."""
    click.echo(
        "| network | image | runtime | Cortex-A72, million | Raspberry Pi 4 | Cortex-A76, million | Raspberry Pi 5 |"
    )
    click.echo("| --- " * 3 + "| ---: " * 4 + "|")
    # Random weights lose more in int8 than trained ones do, which counts do not see.
    with (
        patch.object(builder, "STATIC_LIMIT", math.inf),
        patch.dict(onnx.WORST_RELATIVE_ERROR, {INT8_STATIC: math.inf}),
    ):
        for size in sizes or SIZES:
            for name in networks or NETWORKS:
                for row in rows(name, size, runtimes or list(RUNTIMES)):
                    click.echo(row)


if __name__ == "__main__":
    main()

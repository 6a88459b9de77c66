#!/usr/bin/env python3
"""Every registered network through ONNX: checked graphs, and the error of each against the training form.

    python benchmarks/onnx_parity.py
    python benchmarks/onnx_parity.py 'lsnet*' --image-size 224

For each network one exit in its middle, weights made by hand: the graphs pass onnx.checker, and the largest
relative error of the logits of both answers, stage by stage and as one graph of the full depth, is at most 1e-4.
Needs pip install 'pi-dynn[onnx]'.
"""

import sys
from fnmatch import fnmatch

import click
import torch
from torch import nn

from pi_dynn import Preprocess, build_bundle, create_model, list_models
from pi_dynn.deploy.onnx import onnx_bundle
from pi_dynn.errors import ModelError
from pi_dynn.runtime.engine_choice import relative_error
from pi_dynn.runtime.onnx_network import FULL_DEPTH, OnnxNetwork
from pi_dynn.runtime.session import Session

MOST = 1e-4
CLASSES = 5
OWN_SIZES = {"b_lenet": 28, "b_alexnet": 32, "b_resnet_110": 32, "branchynet": 32}  # they have no other


def network(name: str, image_size: int) -> nn.Module:
    """The network with an exit in its middle, its norms and gates far from what they start with."""
    torch.manual_seed(0)
    size = OWN_SIZES.get(name, image_size)
    depth = create_model(name, num_classes=CLASSES, image_size=size).depth
    model = create_model(name, num_classes=CLASSES, image_size=size, exits=[depth // 2 - 1 if depth > 2 else 0])
    for key, parameter in model.named_parameters():
        if parameter.dim() == 1 and "bias" not in key:
            nn.init.normal_(parameter, 1.0, 0.2)
        elif "gates" in key:
            nn.init.normal_(parameter, 0.0, 1.0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


@torch.inference_mode()
def errors(model: nn.Module) -> tuple[float, float]:
    """Relative error of the stages' logits, and of the full depth graph's, against the training form."""
    bundle = build_bundle(
        model,
        exits=model.exit_blocks,
        thresholds=[0.5] * len(model.exit_blocks),
        precision="fp32",
        labels=[str(i) for i in range(CLASSES)],
        preprocess=Preprocess(size=model.image_size),
    )
    converted = onnx_bundle(bundle)
    x = torch.randn(1, 3, model.image_size, model.image_size)
    expected = [logits for _, logits, _ in model.forward_exits(x)]
    answers = Session(converted, threads=1).forward_all(x)
    stages = max(relative_error([got], [want]) for got, want in zip(answers, expected, strict=True))
    whole = OnnxNetwork([converted.read(FULL_DEPTH)], threads=1).forward_all(x)
    return stages, relative_error(whole, expected[-1:])


@click.command()
@click.argument("patterns", nargs=-1)
@click.option("--image-size", default=64, show_default=True)
def main(patterns: tuple[str, ...], image_size: int) -> None:
    """Convert and compare every network that is called like one of PATTERNS, or all."""
    failed = []
    for name in list_models():
        if patterns and not any(fnmatch(name, pattern) for pattern in patterns):
            continue
        try:
            stages, whole = errors(network(name, image_size))
            verdict = "ok" if max(stages, whole) <= MOST else "too far off"
            click.echo(f"{name:28} stages {stages:.1e}  full depth {whole:.1e}  {verdict}")
        except ModelError as error:
            verdict = str(error)
            click.echo(f"{name:28} {verdict}")
        if verdict != "ok":
            failed.append(name)
    click.echo(f"{len(failed)} failed" if failed else f"all within {MOST:.0e}, all pass onnx.checker", err=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

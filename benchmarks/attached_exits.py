#!/usr/bin/env python3
"""What attached exits cost and save, beside earlyon (pip install earlyon), at equal weights in turns in one run.

    python benchmarks/attached_exits.py --n 200 --markdown

ResNet-18 with exits after layer2 and layer3, MobileNetV2 after features.3 and features.10, where earlyon has them
too. One image at a time: no exit taken, and the first one taken, each beside the backbone without exits. Then 16
images of which half are sure at the first exit: pi_dynn lets those leave, earlyon all or none. earlyon runs the
network as PyTorch modules, as it comes; pi_dynn runs its deploy form. Without earlyon its rows are left out.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads its OpenMP

import copy
import importlib.util

import click
import torch
from torch import Tensor, nn

from pi_dynn import Preprocess, attach_exits, build_bundle
from pi_dynn.clock import PerfClock
from pi_dynn.data.torchvision_ops import torchvision
from pi_dynn.latency.benchmark import Variant, measure
from pi_dynn.latency.text import latency_table
from pi_dynn.runtime.session import NEVER

CLASSES = 10
SIZE = 224
BATCH = 16
PLACES = {"resnet18": ["layer2", "layer3"], "mobilenet_v2": ["features.3", "features.10"]}
EARLYON = {"resnet18": "resnet18_ee", "mobilenet_v2": "mobilenetv2_ee"}
LOADED_EARLYON = importlib.util.find_spec("earlyon") is not None


def deployed(backbone: nn.Module, after: list[str]) -> torch.jit.ScriptModule:
    """The deploy form of `backbone` with exits after the blocks called `after`."""
    model = attach_exits(copy.deepcopy(backbone), after, CLASSES, image_size=SIZE).eval()
    bundle = build_bundle(
        model,
        exits=model.exit_blocks,
        thresholds=[1.0] * len(model.exit_blocks),
        precision="fp32",
        labels=[str(i) for i in range(CLASSES)],
        preprocess=Preprocess(size=SIZE),
    )
    return bundle.load_network("fp32")


def own_variants(
    backbone: nn.Module, after: list[str], x: Tensor, batch: Tensor
) -> tuple[list[Variant], list[Variant]]:
    """One image, then a batch: the deploy form without exits, with none taken, with the first taken or half."""
    plain, network = deployed(backbone, []), deployed(backbone, after)
    with torch.inference_mode():
        scores = network.forward_scored(batch)[1][0].sort().values
    half = [float(scores[BATCH // 2 - 1 : BATCH // 2 + 1].mean()), NEVER]
    single = [
        Variant("pi_dynn, no exits", "none", lambda i: plain(x, [])),
        Variant("pi_dynn, exits not taken", "none", lambda i: network(x, [NEVER, NEVER])),
        Variant("pi_dynn, first exit taken", "first", lambda i: network(x, [0.0, NEVER])),
    ]
    many = [
        Variant(f"pi_dynn, {BATCH} images, no exits", "none", lambda i: plain.forward_batch(batch, [])),
        Variant(f"pi_dynn, {BATCH} images, half leave first", "half", lambda i: network.forward_batch(batch, half)),
    ]
    return single, many


def earlyon_variants(name: str, backbone: nn.Module, x: Tensor, batch: Tensor) -> tuple[list[Variant], list[Variant]]:
    """The same of earlyon, for the weights of `backbone`."""
    models = importlib.import_module("earlyon.models")
    untaken, taken, half = (getattr(models, EARLYON[name])(CLASSES, pretrained=False).eval() for _ in range(3))
    for wrapper in (untaken, taken, half):
        wrapper.backbone.load_state_dict(backbone.state_dict())
        wrapper.flops_estimate  # noqa: B018 - its one dry run, before any timing
    untaken.config.confidence_thresholds = [1.0, 1.0]
    taken.config.confidence_thresholds = [0.0, 0.0]
    with torch.inference_mode():
        sure = half(batch, mode="training")[0].softmax(1).amax(1).sort().values  # of the first exit
    half.config.confidence_thresholds = [float(sure[BATCH // 2 - 1 : BATCH // 2 + 1].mean()), 1.0]
    single = [
        Variant("earlyon, exits not taken", "none", lambda i: untaken(x)),
        Variant("earlyon, first exit taken", "first", lambda i: taken(x)),
    ]
    name = f"earlyon, {BATCH} images, half are sure"
    return single, [Variant(name, "half", lambda i: half.forward_inference_batched(batch))]


@click.command()
@click.option("--n", "rounds", default=100, show_default=True, help="Runs per variant.")
@click.option("--threads", default=1, show_default=True)
@click.option("--markdown", is_flag=True)
def main(rounds: int, threads: int, markdown: bool) -> None:
    """Time both on both networks."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x, batch = torch.randn(1, 3, SIZE, SIZE), torch.randn(BATCH, 3, SIZE, SIZE)
    for name, after in PLACES.items():
        backbone = getattr(torchvision.models, name)(num_classes=CLASSES).eval()
        single, many = own_variants(backbone, after, x, batch)
        if LOADED_EARLYON:
            more, more_many = earlyon_variants(name, backbone, x, batch)
            single, many = single + more, many + more_many
        with torch.inference_mode(), torch.jit.optimized_execution(False):  # as a Session runs it
            rows = measure(single, rounds, threads, PerfClock())
            many_rows = measure(many, max(1, rounds // 5), threads, PerfClock())
        overhead = rows[1].median_s / rows[0].median_s - 1.0
        click.echo(f"{name}, one image\n{latency_table(rows, markdown)}")
        click.echo(f"exits not taken cost {100 * overhead:+.1f} %\n")
        click.echo(f"{name}, {BATCH} images\n{latency_table(many_rows, markdown)}\n")
    missing = "" if LOADED_EARLYON else ", earlyon is not installed"
    click.echo(f"{rounds} runs each, {threads} threads, torch {torch.__version__}{missing}", err=True)


if __name__ == "__main__":
    main()

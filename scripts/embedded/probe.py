#!/usr/bin/env python3
"""A linear probe: how well one linear layer on frozen features tells UC Merced's classes apart.

    python scripts/embedded/probe.py --packed PACKED --weights FILE.safetensors

It is fitted on UC Merced's training part and measured on its calibration part; the test part is not read.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from pack import CALIBRATION_SET, FITTED_SET, open_packed
from safetensors.torch import load_file
from student import new_student, start_from
from teacher_features import Teacher
from torch import Tensor, nn
from views import render, whole_views

from pi_dynn.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from pi_dynn.models.checkpoint import grid_of, image_size_of
from pi_dynn.models.gfnet import PREFIX_TOKENS

EXITS = (2, 3, 4, 5, 6, 7, 8, 9)  # of the stages that train them
BATCH = 128
RIDGE = 0.01  # L2 penalty of the linear classifier, on standardised features


def normalised(x: Tensor) -> Tensor:
    """Images (B, 3, R, R) in 0..255 as the networks take them."""
    mean, std = (
        torch.tensor(values, device=x.device).view(1, 3, 1, 1) * 255 for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (x - mean) / std


def features(model: nn.Module, x: Tensor, last: int | None = None, patches: bool = False) -> Tensor:
    """What heads of a GFNet read after block `last`: the mean token (B, C), or class and distillation token (B, 2C).

    With `patches` the mean of the patches (B, C) of a distilled one, which no head of it reads.
    """
    tokens = model.embed(x)
    for block in model.blocks if last is None else model.blocks[: last + 1]:
        tokens = block(tokens)
    tokens = model.norm(tokens)
    if not model.distilled:
        return tokens.mean(1)
    return tokens[:, PREFIX_TOKENS:].mean(1) if patches else tokens[:, :PREFIX_TOKENS].flatten(1)


def linear_classifier(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Weights (D, C) and bias (C,) of the ridge-penalised multinomial logistic regression."""
    weight = torch.zeros(features.shape[1], num_classes, requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weight + bias, labels) + RIDGE * weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


@torch.inference_mode()
def probe_inputs(embed, size: int, packed: Path, name: str) -> tuple[Tensor, Tensor]:
    """Features and labels of a packed set; `embed` gets images in 0..255."""
    data = open_packed(name, packed)
    images = torch.from_numpy(data.pixels[:].copy())
    views = whole_views(len(images))
    parts = torch.arange(len(images)).split(BATCH)
    return torch.cat([embed(render(images[part], views[part], size)) for part in parts]), torch.from_numpy(data.labels)


def probe(embed, size: int, packed: Path) -> float:
    """Accuracy on the calibration part of a linear classifier fitted on standardised features of the training part."""
    x, y = probe_inputs(embed, size, packed, FITTED_SET)
    held_out, labels = probe_inputs(embed, size, packed, CALIBRATION_SET)
    mean, std = x.mean(0), x.std(0) + 1e-6
    weight, bias = linear_classifier(((x - mean) / std).clone(), y.clone(), int(y.max()) + 1)
    answers = F.linear((held_out - mean) / std, weight.T, bias).argmax(1)
    return float((answers == labels).float().mean())


def probe_network(model: nn.Module, packed: Path, last: int | None = None, patches: bool = False) -> float:
    """The probe of a GFNet at its own image size, of its `features`; the model is left in evaluation mode."""
    model.eval()
    device = next(model.parameters()).device

    def embed(x: Tensor) -> Tensor:
        return features(model, normalised(x.to(device)), last, patches).float().cpu()

    return probe(embed, model.image_size, packed)


@torch.inference_mode()
def accuracy_by_depth(model: nn.Module, packed: Path, first: int) -> dict[str, float]:
    """Share of the calibration part that every exit and the final answer get right, by block.

    `first` is where the outputs for UC Merced's classes begin.
    """
    data = open_packed(CALIBRATION_SET, packed)
    images, labels = torch.from_numpy(data.pixels[:].copy()), torch.from_numpy(data.labels)
    x = normalised(render(images, whole_views(len(images)), model.image_size))
    device = next(model.parameters()).device
    right: dict[str, float] = {}
    for part, wanted in zip(x.split(BATCH), labels.split(BATCH)):
        for block, logits, _ in model.eval().forward_exits(part.to(device)):
            answer = logits[:, first : first + len(data.classes)].argmax(1).cpu()
            right[str(block)] = right.get(str(block), 0.0) + float((answer == wanted).sum())
    return {block: round(count / len(labels), 4) for block, count in right.items()}


def network(weights: Path | None, form: str | None, image_size: int | None, grid: list[int] | None) -> nn.Module:
    """The 12-192 to probe: fresh, or with weights; those of another form or size are brought to the wanted one."""
    state = load_file(weights) if weights else {}
    form = form or ("plain" if state and "cls_token" not in state else "distilled")
    outputs = state["head.weight"].shape[0] if state else 2
    blocks = max([int(key.split(".")[1]) for key in state if key.startswith("gates")], default=-1) + 1
    size = image_size or (image_size_of(state) if state else 128)
    own = grid_of(state) if "cls_token" in state else None
    model = new_student(form, size, outputs, EXITS[:blocks], grid=tuple(grid) if grid else own)
    if state:
        start_from(model, state)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packed", type=Path, default=Path("runs/embedded/packed"))
    parser.add_argument("--weights", type=Path, help="of a stage; without, the network as it is initialised")
    parser.add_argument("--form", choices=("plain", "distilled"), help="[default: that of the weights, or distilled]")
    parser.add_argument("--image-size", type=int, help="[default: that of the weights, or 128]")
    parser.add_argument("--grid", type=int, nargs=2, help="of a distilled network's filters, such as 66 1")
    parser.add_argument("--block", type=int, help="what is read after it [default: the last]")
    parser.add_argument("--patches", action="store_true", help="the mean of the patches, not the tokens heads read")
    parser.add_argument("--teacher", type=int, metavar="PX", help="probe EfficientNet-Lite0 at PX pixels instead")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.teacher:
        what = {"probe": "EfficientNet-Lite0", "image_size": arguments.teacher}
        accuracy = probe(Teacher(torch.device("cpu")), arguments.teacher, arguments.packed)
    else:
        model = network(arguments.weights, arguments.form, arguments.image_size, arguments.grid)
        what = {"probe": arguments.weights.name if arguments.weights else "initialised"}
        what |= {"form": "distilled" if model.distilled else "plain", "image_size": model.image_size}
        what |= {"grid": list(model.grid), "block": arguments.block, "patches": arguments.patches}
        accuracy = probe_network(model, arguments.packed, arguments.block, arguments.patches)
    print(json.dumps(what | {"ucm_calibrate": round(accuracy, 4)}))


if __name__ == "__main__":
    main()

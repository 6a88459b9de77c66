"""A checkpoint to a bundle: the network's shape is read off its card or its weights."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pi_dynn.data.folders import open_image_folder
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.deploy.builder import build_bundle
from pi_dynn.deploy.onnx import onnx_bundle
from pi_dynn.errors import CheckpointError, InputError, ModelError
from pi_dynn.models.card import Card, read_card
from pi_dynn.models.checkpoint import image_size_of, load_checkpoint
from pi_dynn.models.checkpoint_exits import EXIT_KEY, blocks_of_exits
from pi_dynn.models.checkpoint_file import CheckpointFile, read_checkpoint
from pi_dynn.models.gfnet import SIZES
from pi_dynn.models.gfnet_pyramid import SIZES as PYRAMID_SIZES
from pi_dynn.models.registry import canonical_name, create_model
from pi_dynn.runtime.bundle import Bundle, is_bundle, load_bundle
from pi_dynn.runtime.manifest import INT8_STATIC

CALIBRATION_IMAGES = 128
BRANCH_KEY = re.compile(r"(branch|branches\.)(\d+)\..+")  # of the networks that have a branch for an exit


@dataclass(frozen=True)
class ExportSettings:
    """What the file does not tell; None leaves it to the file: all its exits, its size, class numbers as labels."""

    model: str | None = None
    exits: list[int] | None = None
    thresholds: list[float] | float | None = None  # 0.9 everywhere, or a bundle's own
    labels: list[str] | None = None
    image_size: int | None = None
    crop: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    precision: str | None = None  # int8, or a bundle's own
    data: Path | None = None  # images to set the ranges of static int8 with


def export(source: Path | None, settings: ExportSettings, form: str = "torchscript") -> Bundle:
    """The bundle of a checkpoint in the given form; a bundle (None: the embedded one) is put into another form.

    Raises: CheckpointError, ModelError, BundleError; InputError for settings that would change a bundle.
    """
    _check_calibration(settings, form)
    if source is not None and not is_bundle(source):
        if settings.data is None or form != "onnx":
            bundle = export_checkpoint(source, settings)
            return onnx_bundle(bundle, settings.precision or "int8") if form == "onnx" else bundle
        bundle = export_checkpoint(source, replace(settings, precision="fp32"))
        return onnx_bundle(bundle, "int8", calibration_images(_preprocess_of(bundle), settings.data))
    if form != "onnx":
        raise InputError(f"{source or 'the embedded bundle'} is a bundle already: pass --format onnx for its ONNX form")
    given = [name for name, value in vars(replace(settings, precision=None, data=None)).items() if value is not None]
    if given:
        raise InputError(f"a bundle keeps its {', '.join(given)}: leave out --{given[0].replace('_', '-')}")
    bundle = load_bundle(source)
    if settings.data is None:
        return onnx_bundle(bundle, settings.precision)
    return onnx_bundle(bundle, "int8", calibration_images(_preprocess_of(bundle), settings.data))


def _check_calibration(settings: ExportSettings, form: str) -> None:
    """Raise InputError unless images are given where they are of use, and only there."""
    if settings.precision == INT8_STATIC:
        if form == "onnx":
            raise InputError(f"{INT8_STATIC} is for TorchScript: in ONNX, --precision int8 with --data is static")
        if settings.data is None:
            raise InputError(f"{INT8_STATIC} sets its ranges by images: pass --data DIR with a folder for each class")
    elif settings.data is not None and (form != "onnx" or settings.precision == "fp32"):
        raise InputError(
            f"--data is for static int8: pass --precision {INT8_STATIC} with it, or --format onnx and no fp32"
        )


def _preprocess_of(bundle: Bundle) -> Preprocess:
    return Preprocess.from_dict(bundle.manifest.preprocess)


def calibration_images(preprocess: Preprocess, folder: Path) -> Tensor:
    """Images of a folder of class folders as a network reads them, spread over all: (N, 3, S, S)."""
    data = open_image_folder(folder)
    count = min(len(data), CALIBRATION_IMAGES)
    return torch.stack([preprocess(data.source(i * len(data) // count)) for i in range(count)])


def export_checkpoint(path: Path, settings: ExportSettings) -> Bundle:
    """The bundle of the checkpoint at `path`. Raises CheckpointError, ModelError."""
    file, card = read_checkpoint(path), read_card(path)
    model = network_of(file, card, settings)
    load_checkpoint(model, path)
    exits = model.exit_blocks if settings.exits is None else settings.exits
    thresholds = 0.9 if settings.thresholds is None else settings.thresholds
    if isinstance(thresholds, (int, float)):
        thresholds = [float(thresholds)] * len(exits)
    preprocess = Preprocess(size=model.image_size) if card is None else Preprocess.from_dict(card.preprocess)
    given = {"crop": settings.crop, "mean": settings.mean, "std": settings.std}
    preprocess = replace(
        preprocess, size=model.image_size, **{name: value for name, value in given.items() if value is not None}
    )
    return build_bundle(
        model.eval(),
        exits=exits,
        thresholds=thresholds,
        precision=settings.precision or "int8",
        labels=settings.labels or (card.classes if card else [str(index) for index in range(model.num_classes)]),
        preprocess=preprocess,
        notes={"checkpoint": path.name, "thresholds_chosen": "given by hand at export"},
        calibration=None if settings.precision != INT8_STATIC else calibration_images(preprocess, settings.data),
    )


def network_of(file: CheckpointFile, card: Card | None, settings: ExportSettings) -> nn.Module:
    """The fresh network the file's weights belong to. Raises CheckpointError, ModelError if it cannot be told."""
    name = canonical_name(settings.model or (card.model if card else architecture_of(file.state)))
    if card is not None and card.model == name:
        arguments = dict(card.arguments)
    else:
        image_size = settings.image_size or image_size_of(file.state)
        if image_size is None:
            raise CheckpointError(f"the checkpoint {str(file.path)!r} does not tell its image size: pass --image-size")
        arguments = {
            "num_classes": classes_of(file, name, image_size),
            "image_size": image_size,
            "exits": trained_exits(file) if settings.exits is None or has_branches(file) else settings.exits,
            "distilled": any(key.startswith(("cls_token", "head_dist.")) for key in file.state),
            "exit_heads": "cls+dist" if any("intermediate_heads_dist." in key for key in file.state) else "cls",
        }
    if settings.image_size is not None:
        arguments["image_size"] = settings.image_size
    if settings.exits is not None and not has_branches(file):
        arguments["exits"] = settings.exits
    return create_model(name, **arguments | {"exits": arguments.get("exits") or None})


def classes_of(file: CheckpointFile, name: str, image_size: int) -> int:
    """The number of classes of a file of network `name`: the length of what changes with it.

    Raises: CheckpointError for a file without that key.
    """
    with torch.device("meta"):
        two, three = (create_model(name, num_classes=n, image_size=image_size).state_dict() for n in (2, 3))
    keys = [key for key, value in two.items() if value.shape != three[key].shape]
    found = next((file.state[key] for key in keys if key in file.state), None)
    found = file.state.get(keys[0].removeprefix("backbone.")) if found is None else found
    if found is None or not found.shape:
        raise CheckpointError(f"the checkpoint {str(file.path)!r} has no {keys[0]}: is it a {name} classifier?")
    return found.shape[0]


def has_branches(file: CheckpointFile) -> bool:
    """Whether the exits of the file are branches, which a network takes whole or not at all."""
    return any(BRANCH_KEY.fullmatch(key) for key in file.state)


def trained_exits(file: CheckpointFile) -> list[int]:
    """Blocks after which the file has exits. Raises CheckpointError if it does not tell."""
    branches = sorted({(match[1], int(match[2])) for key in file.state if (match := BRANCH_KEY.fullmatch(key))})
    if branches:  # branch1 follows block 0
        return [number - (kind == "branch") for kind, number in branches]
    numbers = sorted({int(match[2]) for key in file.state if (match := EXIT_KEY.fullmatch(key))})
    if not numbers:
        return []
    if file.exit_blocks is not None:
        return list(blocks_of_exits(numbers, 0, (), file.exit_blocks).values())
    return list(blocks_of_exits(numbers, len(block_names(file.state)), (), None).values())


def architecture_of(state: Mapping[str, Tensor]) -> str:
    """The registered GFNet the weights belong to, by width and blocks. Raises ModelError if it is not one."""
    head = state.get("head.weight")
    if head is None or head.dim() != 2 or not block_names(state):
        raise ModelError("the weights are no GFNet's and have no card that tells their network: pass --model")
    shape = head.shape[1], block_names(state)
    fitting = [name for name in (*SIZES, *PYRAMID_SIZES) if _shape_of(name) == shape]
    if len(fitting) != 1:
        raise ModelError(
            f"weights of width {shape[0]} in {len(shape[1])} blocks fit {' and '.join(fitting) or 'no known network'}: "
            "pass --model"
        )
    return fitting[0]


def block_names(state: Mapping[str, Tensor]) -> set[str]:
    """Names of the blocks with a global filter."""
    return {key.partition(".filter.")[0] for key in state if ".filter." in key}


def _shape_of(name: str) -> tuple[int, set[str]]:
    with torch.device("meta"):
        state = create_model(name, num_classes=2, image_size=224).state_dict()
    return state["head.weight"].shape[1], block_names(state)

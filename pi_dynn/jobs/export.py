"""A checkpoint to a bundle: the network's shape is read off its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.deploy.builder import build_bundle
from pi_dynn.errors import CheckpointError, ModelError
from pi_dynn.models.checkpoint import image_size_of, load_checkpoint
from pi_dynn.models.checkpoint_exits import EXIT_KEY, blocks_of_exits
from pi_dynn.models.checkpoint_file import CheckpointFile, read_checkpoint
from pi_dynn.models.gfnet import SIZES
from pi_dynn.models.gfnet_pyramid import SIZES as PYRAMID_SIZES
from pi_dynn.models.registry import create_model
from pi_dynn.runtime.bundle import Bundle


@dataclass(frozen=True)
class ExportSettings:
    """What the weights do not tell; None means all exits of the file, its image size, class numbers as labels."""

    model: str | None = None
    exits: list[int] | None = None
    thresholds: list[float] | float = 0.9
    labels: list[str] | None = None
    image_size: int | None = None
    crop: float = 1.0
    precision: str = "int8"


def export_checkpoint(path: Path, settings: ExportSettings) -> Bundle:
    """The bundle of the checkpoint at `path`. Raises CheckpointError, ModelError."""
    file = read_checkpoint(path)
    head = file.state.get("head.weight")
    if head is None or head.dim() != 2:
        raise CheckpointError(
            f"the checkpoint {str(path)!r} has no head.weight (classes, channels): is it a classifier?"
        )
    num_classes = head.shape[0]
    image_size = settings.image_size or image_size_of(file.state)
    if image_size is None:
        raise CheckpointError(f"the checkpoint {str(path)!r} does not tell its image size: pass --image-size")
    exits = trained_exits(file) if settings.exits is None else settings.exits
    model = create_model(
        settings.model or architecture_of(file.state),
        num_classes=num_classes,
        image_size=image_size,
        exits=exits or None,
        distilled="cls_token" in file.state,
        exit_heads="cls+dist" if any(key.startswith("intermediate_heads_dist.") for key in file.state) else "cls",
    )
    load_checkpoint(model, path)
    thresholds = settings.thresholds
    if isinstance(thresholds, (int, float)):
        thresholds = [float(thresholds)] * len(exits)
    return build_bundle(
        model.eval(),
        exits=exits,
        thresholds=thresholds,
        precision=settings.precision,
        labels=settings.labels or [str(index) for index in range(num_classes)],
        preprocess=Preprocess(size=image_size, crop=settings.crop),
        notes={"checkpoint": path.name, "thresholds_chosen": "given by hand at export"},
    )


def trained_exits(file: CheckpointFile) -> list[int]:
    """Blocks after which the file has exits. Raises CheckpointError if it does not tell."""
    numbers = sorted({int(match[2]) for key in file.state if (match := EXIT_KEY.fullmatch(key))})
    if not numbers:
        return []
    return list(blocks_of_exits(numbers, len(block_names(file.state)), (), file.exit_blocks).values())


def architecture_of(state: Mapping[str, Tensor]) -> str:
    """The registered GFNet the weights belong to, by width and blocks. Raises ModelError if it is not one."""
    shape = state["head.weight"].shape[1], block_names(state)
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

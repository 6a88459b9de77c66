"""The network of a checkpoint, from its card or from the shapes of its weights; for `train` and `export`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import CheckpointError, ModelError
from pi_dynn.models.card import Card, read_card
from pi_dynn.models.checkpoint import image_size_of
from pi_dynn.models.checkpoint_exits import EXIT_KEY, blocks_of_exits
from pi_dynn.models.checkpoint_file import CheckpointFile, read_checkpoint
from pi_dynn.models.gfnet import SIZES
from pi_dynn.models.gfnet_pyramid import SIZES as PYRAMID_SIZES
from pi_dynn.models.registry import canonical_name, create_model

BRANCH_KEY = re.compile(r"(branch|branches\.)(\d+)\..+")  # of the networks that have a branch for an exit


def card_of(
    path: Path, *, model: str | None = None, image_size: int | None = None, exits: Sequence[int] | None = None
) -> Card:
    """What the checkpoint at `path` is: `create_model(card.model, **card.arguments)` builds its network.

    It is read from a card in the file, else from the weights of a GFNet, or those of another network whose name
    `model` is given. `image_size` and `exits` replace what the weights do not show, or choose another size and other
    exits; BranchyNet's branches are always kept.

    Raises: CheckpointError, ModelError for a file whose network cannot be determined.
    """
    file, card = read_checkpoint(path), read_card(path)
    name = canonical_name(model or (card.model if card else architecture_of(file.state)))
    if card is None or canonical_name(card.model) != name:
        card = _card_from_weights(file, name, image_size, exits)
    options = {"image_size": image_size, "exits": None if exits is None or _has_branches(file) else list(exits)}
    arguments = card.arguments | {key: value for key, value in options.items() if value is not None}
    return Card(name, arguments | {"exits": arguments.get("exits") or None}, card.classes, card.preprocess, card.stages)


def _card_from_weights(file: CheckpointFile, name: str, image_size: int | None, exits: Sequence[int] | None) -> Card:
    size = image_size or image_size_of(file.state)
    if size is None:
        raise CheckpointError(f"the checkpoint {str(file.path)!r} does not contain its image size: pass --image-size")
    two, three = (_on_meta(name, classes, size) for classes in (2, 3))
    classes = _classes_of(file, name, two.state_dict(), three.state_dict())
    arguments = {
        "num_classes": classes,
        "image_size": size,
        "exits": trained_exits(file, getattr(two, "depth", 0)) if exits is None or _has_branches(file) else list(exits),
        "distilled": any(key.startswith(("cls_token", "head_dist.")) for key in file.state),
        "exit_heads": "cls+dist" if any("intermediate_heads_dist." in key for key in file.state) else "cls",
    }
    return Card(name, arguments, [str(index) for index in range(classes)], Preprocess(size=size))


def _on_meta(name: str, classes: int, image_size: int) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, num_classes=classes, image_size=image_size)


def _classes_of(file: CheckpointFile, name: str, two: Mapping[str, Tensor], three: Mapping[str, Tensor]) -> int:
    """The number of classes of the file, from the first dimension that depends on it.

    Raises: CheckpointError for a file without that key.
    """
    keys = [key for key, value in two.items() if value.shape != three[key].shape]
    weight = next((file.state[key] for key in keys if key in file.state), None)
    weight = file.state.get(keys[0].removeprefix("backbone.")) if weight is None else weight
    if weight is None or not weight.shape:
        raise CheckpointError(f"the checkpoint {str(file.path)!r} has no {keys[0]}: is it a {name} classifier?")
    return weight.shape[0]


def _has_branches(file: CheckpointFile) -> bool:
    return any(BRANCH_KEY.fullmatch(key) for key in file.state)


def trained_exits(file: CheckpointFile, depth: int) -> list[int]:
    """Blocks out of `depth` after which the file has exits. Raises CheckpointError if that is not clear."""
    branches = sorted({(match[1], int(match[2])) for key in file.state if (match := BRANCH_KEY.fullmatch(key))})
    if branches:  # branch1 follows block 0
        return [number - (kind == "branch") for kind, number in branches]
    numbers = sorted({int(match[2]) for key in file.state if (match := EXIT_KEY.fullmatch(key))})
    return list(blocks_of_exits(numbers, depth, (), file.exit_blocks).values()) if numbers else []


def architecture_of(state: Mapping[str, Tensor]) -> str:
    """The registered GFNet the weights belong to, by width and blocks. Raises ModelError if it is not one."""
    head = state.get("head.weight")
    if head is None or head.dim() != 2 or not _blocks_of(state):
        raise ModelError("the weights are no GFNet's and no card names their network: pass --model")
    shape = head.shape[1], _blocks_of(state)
    fitting = [name for name in (*SIZES, *PYRAMID_SIZES) if _shape_of(name) == shape]
    if len(fitting) != 1:
        raise ModelError(
            f"weights of width {shape[0]} in {len(shape[1])} blocks fit {' and '.join(fitting) or 'no known network'}: "
            "pass --model"
        )
    return fitting[0]


def _blocks_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Of the blocks with a global filter, the width inside the MLP, and how many times smaller the grid's side is."""
    sides = {key.partition(".filter.")[0]: len(value) for key, value in state.items() if ".filter." in key}
    widths = {name: len(state.get(f"{name}.mlp.fc1.weight", ())) for name in sides}
    return {name: (widths[name], max(sides.values()) // side) for name, side in sides.items()}


def _shape_of(name: str) -> tuple[int, dict[str, tuple[int, int]]]:
    state = _on_meta(name, 2, 224).state_dict()
    return state["head.weight"].shape[1], _blocks_of(state)

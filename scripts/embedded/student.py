"""The student: the 12-192 in the form, size and with the exits that a stage wants, and the weights it starts from."""

from collections.abc import Mapping

import torch
from growth import distilled_from_plain
from torch import Tensor, nn

from pi_dynn import create_model
from pi_dynn.models.checkpoint import image_size_of
from pi_dynn.models.resize import resize_state_dict
from pi_dynn.train.networks import faster_on

ARCHITECTURE = "gfnet_12_192"


def new_student(
    form: str,
    image_size: int,
    outputs: int,
    exits: tuple[int, ...] = (),
    device: str | torch.device = "cpu",
    grid: tuple[int, int] | None = None,
) -> nn.Module:
    """A fresh student, its filters in the form that trains fastest on the device; `grid` of a distilled one's."""
    model = create_model(
        ARCHITECTURE,
        num_classes=outputs,
        image_size=image_size,
        exits=list(exits) or None,
        distilled=form == "distilled",
        exit_heads="cls+dist" if form == "distilled" else "cls",
        **({} if grid is None else {"grid": grid}),
    )
    return faster_on(model, torch.device(device)).to(device)


def start_from(model: nn.Module, state: Mapping[str, Tensor], first: int | None = None) -> None:
    """Load the weights of an earlier stage: resized and grown where need be; new exits begin as the final head.

    Heads of a network with other outputs are as they are initialised; from output `first` on they are its own.
    """
    if "cls_token" not in state:
        state = resize_state_dict(state, image_size_of(state), model.image_size)
        state = distilled_from_plain(state, model.grid) if model.distilled else state
    own = model.state_dict()
    if state["head.weight"].shape != own["head.weight"].shape:
        state = widened(state, own, first)
    new = {}
    for key, value in own.items():
        if key in state:
            new[key] = state[key]
        elif key.startswith("intermediate_heads"):
            new[key] = state[f"head.{key.rsplit('.', 1)[1]}"].clone()
        else:  # gates, which other scripts train
            new[key] = value
    model.load_state_dict(new)


def widened(state: Mapping[str, Tensor], own: Mapping[str, Tensor], first: int | None) -> dict[str, Tensor]:
    """`state` with final heads of the size of those in `own`, which from output `first` on answer what it answered.

    Its exits are left out: they may be after other blocks.
    """
    wide = {key: value for key, value in state.items() if "head" not in key}
    for key in (key for key in state if key.startswith("head")):
        wide[key] = own[key].clone()
        if first is not None:
            wide[key][first : first + len(state[key])] = state[key]
    return wide


def answers(model: nn.Module, x: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor], list[Tensor]]:
    """The final heads' answers, each (B, outputs), those of the exits before them, and the tokens after every block."""
    tokens, exits, after = model.embed(x), [], []
    for index, block in enumerate(model.blocks):
        tokens = block(tokens)
        after.append(tokens)
        if index in model.exit_blocks:
            exits.append(model.exit_logits(tokens, model.exit_blocks.index(index)))
    if not model.distilled:
        return (model.final_logits(tokens),), exits, after
    tokens = model.norm(tokens)
    return (model.head(tokens[:, 0]), model.head_dist(tokens[:, 1])), exits, after

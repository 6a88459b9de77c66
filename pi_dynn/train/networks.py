"""Initial weights and teachers: checkpoints, bundles and networks of torchvision."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import BundleError, InputError, ModelError, UnknownModel
from pi_dynn.models.card import Card, read_card
from pi_dynn.models.checkpoint import load_checkpoint
from pi_dynn.models.checkpoint_card import card_of
from pi_dynn.models.dft import filters_as_matrices
from pi_dynn.models.pretrained import known_pretrained, load_pretrained, load_trunk
from pi_dynn.models.registry import canonical_name, create_model
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.engine_choice import exact_network
from pi_dynn.train.teacher_network import TeacherNetwork

MOST_MATRIX_TOKENS = 100  # up to here a filter trains faster as matrices than by FFT on a CPU


@dataclass(frozen=True)
class Start:
    """What a network starts from: nothing, the checkpoint `init`, or its `pretrained` weights."""

    init: Path | None = None
    pretrained: bool = False

    def card(self, name: str | None, image_size: int | None) -> Card | None:
        """What there is to start from: network, image size, how its images were prepared; None if nothing tells.

        Raises: CheckpointError, ModelError where there is something and it cannot be told what.
        """
        if self.pretrained and self.init is not None:
            raise InputError("a network starts from a checkpoint or from its pretrained weights: give only one")
        if self.pretrained:
            if name is None:
                raise InputError("no network is named whose pretrained weights to take: give --model")
            entry = known_pretrained(name)
            return Card(entry.model, {"image_size": entry.preprocess.size}, [], entry.preprocess)
        if self.init is None:
            return None
        if name is None or image_size is None:
            return card_of(self.init, model=name, image_size=image_size)
        return read_card(self.init)

    def load(self, model: nn.Module) -> dict[str, Any] | None:
        """Put the weights into `model`; what was taken, for a manifest. Raises as `load_pretrained`."""
        if self.pretrained:
            return load_pretrained(model)
        return None if self.init is None else load_trunk(model, self.init)


def faster_on(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with the filters in the form that trains faster on the device; keys and numbers stay."""
    small = all(module.a * module.b <= MOST_MATRIX_TOKENS for module in model.modules() if hasattr(module, "a"))
    return filters_as_matrices(model) if device.type == "cpu" and small else model


def teacher_file(source: str) -> tuple[str | None, Path]:
    """The network and the file of a teacher, as in NAME=FILE. Raises ModelError for a name without a file."""
    name, _, file = source.partition("=")
    try:
        canonical_name(name)
    except UnknownModel:
        return None, Path(source)
    if file:
        return name, Path(file)
    raise ModelError(
        f"teacher {source!r} has no weights: give {source}=FILE, or train one with "
        f"`pi-dynn train transfer --model {source}` and give its best.safetensors"
    )


def open_teacher(source: str, classes: Sequence[str], students: Preprocess, device: torch.device) -> TeacherNetwork:
    """The teacher behind a bundle or a checkpoint, or the network NAME behind `NAME=FILE`.

    Raises: ModelError for a teacher without the classes, CheckpointError for a file that does not fit.
    """
    name, path = teacher_file(source)
    if name is not None:
        card = read_card(path)  # other weights have none and are assumed to be for these images
        own = students if card is None else card.preprocess
        model = create_model(name, num_classes=len(classes), image_size=own.size)
        load_checkpoint(model, path)
        return _taught_by(model, own, students, (classes if card is None else card.classes, classes), device)
    try:
        bundle = Bundle(path.read_bytes(), str(path))
    except (BundleError, OSError):
        bundle = None
    if bundle is not None:
        answer = _full_depth(bundle)
        own = bundle.manifest.preprocess
        return TeacherNetwork(answer, own, students, (bundle.manifest.labels, classes))
    card = card_of(path)
    model = create_model(card.model, **card.arguments)
    load_checkpoint(model, path)
    known = card.classes if read_card(path) is not None or len(card.classes) != len(classes) else classes
    return _taught_by(model, card.preprocess, students, (known, classes), device)


def _taught_by(
    model: nn.Module,
    own: Preprocess,
    students: Preprocess,
    classes: tuple[Sequence[str], Sequence[str]],
    device: torch.device,
) -> TeacherNetwork:
    return TeacherNetwork(faster_on(model, device).eval(), own, students, classes)


def _full_depth(bundle: Bundle) -> Callable[[Tensor], Tensor]:
    """The last answer of a bundle's network, on the CPU, which is where bundles run."""
    network = exact_network(bundle)
    return lambda x: network.forward_all(x.cpu())[-1].to(x.device)

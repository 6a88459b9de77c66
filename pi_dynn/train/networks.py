"""Initial weights and teachers: checkpoints, bundles and networks of torchvision."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import BundleError, CheckpointError, ModelError, UnknownModel
from pi_dynn.files import file_sha256
from pi_dynn.models.card import read_card
from pi_dynn.models.checkpoint import load_checkpoint
from pi_dynn.models.checkpoint_card import card_of
from pi_dynn.models.dft import filters_as_matrices
from pi_dynn.models.registry import canonical_name, create_model
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.engines import available_engines
from pi_dynn.train.teacher_network import TeacherNetwork

HEADS = ("head.", "head_dist.", "intermediate_", "gates.", "fc.", "classifier.", "heads.")  # may be newly initialised
MOST_MATRIX_TOKENS = 100  # up to here a filter trains faster as matrices than by FFT on a CPU


def start_from(model: nn.Module, path: Path) -> dict:
    """Load a checkpoint into `model`, except heads of other classes; returns the report for a manifest.

    Raises: CheckpointError if anything but heads and gates would be left untrained.
    """
    report = load_checkpoint(model, path, strict=False)
    fresh = [*report.missing, *(entry.partition(" ")[0] for entry in report.misshaped)]
    strange = [key for key in (*fresh, *report.unexpected) if not key.removeprefix("backbone.").startswith(HEADS)]
    if strange:
        hints = "".join(f"; {hint}" for hint in report.hints)
        raise CheckpointError(
            f"the checkpoint {str(path)!r} does not fit: {len(strange)} keys, first {strange[0]}{hints}"
        )
    heads = {key.removeprefix("backbone.").partition(".")[0] for key in fresh}
    return {"file": path.name, "sha256": file_sha256(path), "fresh": sorted(heads)}


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
    network = bundle.load_network(available_engines()[0] if bundle.manifest.precision == "int8" else "fp32")
    return lambda x: network.forward_all(x.cpu())[-1].to(x.device)

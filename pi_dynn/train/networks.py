"""Networks to train and to learn from: by name, from a checkpoint, from a bundle, from torchvision."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.data.torchvision_ops import torchvision
from pi_dynn.deploy.export import architecture_of, trained_exits
from pi_dynn.errors import BundleError, CheckpointError, ModelError
from pi_dynn.files import file_sha256
from pi_dynn.models.card import Card, read_card
from pi_dynn.models.checkpoint import image_size_of, load_checkpoint
from pi_dynn.models.checkpoint_file import read_checkpoint
from pi_dynn.models.dft import filters_as_matrices
from pi_dynn.models.registry import create_model
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.engines import available_engines
from pi_dynn.train.teacher_network import TeacherNetwork

TORCHVISION = "torchvision:"
HEADS = ("head.", "head_dist.", "intermediate_", "gates.", "fc.", "classifier.", "heads.")  # may be fresh
MOST_MATRIX_TOKENS = 100  # up to here a filter trains faster as matrices than by FFT on a CPU


def build_network(name: str, *, num_classes: int, image_size: int, **arguments) -> nn.Module:
    """A fresh network: a registered one, or `torchvision:NAME`. Its `name` and `arguments` build it again.

    Raises: UnknownModel, ModelError.
    """
    if not name.startswith(TORCHVISION):
        return create_model(name, num_classes=num_classes, image_size=image_size, **arguments)
    if arguments:
        raise ModelError(f"{name} takes no {', '.join(arguments)}: choose one of pi_dynn's own networks for that")
    try:
        model = torchvision.models.get_model(name.removeprefix(TORCHVISION), weights=None, num_classes=num_classes)
    except ValueError as error:
        raise ModelError(f"{name}: {error}; see torchvision.models.list_models()") from error
    model.name, model.arguments = name, {"num_classes": num_classes, "image_size": image_size}
    return model


def start_from(model: nn.Module, path: Path) -> dict:
    """Put the weights of a checkpoint into `model`, all but heads of other classes; what was taken, for a manifest.

    Raises: CheckpointError if anything but heads and gates would be left untrained.
    """
    report = load_checkpoint(model, path, strict=False)
    fresh = [*report.missing, *(entry.partition(" ")[0] for entry in report.misshaped)]
    strange = [key for key in (*fresh, *report.unexpected) if not key.startswith(HEADS)]
    if strange:
        hints = "".join(f"; {hint}" for hint in report.hints)
        raise CheckpointError(
            f"the checkpoint {str(path)!r} does not fit: {len(strange)} keys, first {strange[0]}{hints}"
        )
    return {"file": path.name, "sha256": file_sha256(path), "fresh": sorted({key.partition(".")[0] for key in fresh})}


def card_of(path: Path) -> Card:
    """What the checkpoint at `path` is: its own card, or what its weights tell.

    Raises: CheckpointError, ModelError for a file without a card whose network cannot be told.
    """
    card = read_card(path)
    if card is not None:
        return card
    file = read_checkpoint(path)
    head = file.state.get("head.weight")
    size = image_size_of(file.state)
    if head is None or head.dim() != 2 or size is None:
        raise CheckpointError(f"the checkpoint {str(path)!r} does not tell its network: it has no card and is no GFNet")
    arguments = {"num_classes": head.shape[0], "image_size": size, "distilled": "cls_token" in file.state}
    exits = trained_exits(file)
    if exits:
        arguments["exits"] = exits
    labels = [str(index) for index in range(head.shape[0])]
    return Card(architecture_of(file.state), arguments, labels, Preprocess(size=size).to_dict())


def faster_on(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with the filters in the form that trains faster on the device; keys and numbers stay."""
    small = all(module.a * module.b <= MOST_MATRIX_TOKENS for module in model.modules() if hasattr(module, "a"))
    return filters_as_matrices(model) if device.type == "cpu" and small else model


def teacher_file(source: str) -> Path:
    """The file behind what names a teacher. Raises ModelError for a torchvision network without weights."""
    if not source.startswith(TORCHVISION):
        return Path(source)
    _, _, file = source.partition("=")
    if not file:
        raise ModelError(
            f"teacher {source!r} has no weights: give {source}=FILE, or train one with "
            f"`pi-dynn train transfer --model {source}` and give its best.safetensors"
        )
    return Path(file)


def open_teacher(source: str, classes: Sequence[str], students: Preprocess, device: torch.device) -> TeacherNetwork:
    """The teacher behind a bundle or a checkpoint, or torchvision's network behind `torchvision:NAME=FILE`.

    Raises: ModelError for a teacher that does not know the classes, CheckpointError for a file that does not fit.
    """
    path = teacher_file(source)
    if source.startswith(TORCHVISION):
        card = read_card(path)  # weights from elsewhere have none: they are taken to be made for these images
        own = students if card is None else Preprocess.from_dict(card.preprocess)
        model = build_network(source.partition("=")[0], num_classes=len(classes), image_size=own.size)
        load_checkpoint(model, path)
        return _taught_by(model, own, students, (classes if card is None else card.classes, classes), device)
    try:
        bundle = Bundle(path.read_bytes(), str(path))
    except (BundleError, OSError):
        bundle = None
    if bundle is not None:
        answer = _full_depth(bundle)
        own = Preprocess.from_dict(bundle.manifest.preprocess)
        return TeacherNetwork(answer, own, students, (bundle.manifest.labels, classes))
    card = card_of(path)
    model = build_network(card.model, **card.arguments)
    load_checkpoint(model, path)
    known = card.classes if read_card(path) is not None or len(card.classes) != len(classes) else classes
    return _taught_by(model, Preprocess.from_dict(card.preprocess), students, (known, classes), device)


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

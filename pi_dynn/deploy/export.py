"""Export of a checkpoint to a bundle; the network is determined by its card or its weights."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pi_dynn.data.folders import ImageFolder
from pi_dynn.data.layouts import open_data
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.deploy.builder import DEFAULT_THRESHOLD, build_bundle
from pi_dynn.deploy.coreml import save_coreml
from pi_dynn.deploy.fused_file import fused_network, is_torchscript
from pi_dynn.deploy.litert import litert_bundle
from pi_dynn.deploy.onnx import onnx_bundle
from pi_dynn.deploy.unpacked import training_network
from pi_dynn.errors import InputError, ModelError
from pi_dynn.models.card import Card
from pi_dynn.models.checkpoint import load_checkpoint
from pi_dynn.models.checkpoint_card import card_of
from pi_dynn.models.registry import create_model
from pi_dynn.runtime.bundle import Bundle, is_bundle, load_bundle
from pi_dynn.runtime.forms import LITERT, ONNX, TORCHSCRIPT
from pi_dynn.runtime.manifest import INT8_STATIC

CALIBRATION_IMAGES = 128
UNCHOSEN = f"not chosen, {DEFAULT_THRESHOLD} everywhere"


@dataclass(frozen=True)
class ExportSettings:
    """Options that a file lacks or that replace its own; for None its exits, its size, class numbers as labels."""

    model: str | None = None
    exits: list[int] | None = None
    thresholds: list[float] | float | None = None  # DEFAULT_THRESHOLD everywhere, or a bundle's own
    labels: list[str] | None = None
    image_size: int | None = None
    crop: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    precision: str | None = None  # int8, or a bundle's own
    data: Path | None = None  # images to set the ranges of static int8 with


def export(source: Path | None, settings: ExportSettings, form: str = TORCHSCRIPT) -> Bundle:
    """The bundle of a checkpoint in the given form; a bundle (None: the embedded one) is put into another form.

    Raises: CheckpointError, ModelError, BundleError; InputError for settings that would change a bundle.
    """
    checkpoint = source if source is not None and not is_bundle(source) else None
    if form == LITERT and checkpoint is not None and settings.precision is None:
        settings = replace(settings, precision=INT8_STATIC)
    _check_calibration(settings, form)
    if form == LITERT:
        return _for_litert(checkpoint, source, settings)
    if checkpoint is not None:
        if settings.data is None or form != ONNX:
            bundle = export_checkpoint(checkpoint, settings)
            return onnx_bundle(bundle, settings.precision or "int8") if form == ONNX else bundle
        bundle = export_checkpoint(checkpoint, replace(settings, precision="fp32"))
        return onnx_bundle(bundle, "int8", calibration_images(_preprocess_of(bundle), settings.data))
    if form != ONNX:
        raise InputError(f"{source or 'the embedded bundle'} is a bundle already: pass --format onnx or litert with it")
    _check_bundle_options(replace(settings, precision=None, data=None))
    bundle = load_bundle(source)
    if settings.data is None:
        return onnx_bundle(bundle, settings.precision)
    return onnx_bundle(bundle, "int8", calibration_images(_preprocess_of(bundle), settings.data))


def _for_litert(checkpoint: Path | None, source: Path | None, settings: ExportSettings) -> Bundle:
    """The LiteRT form of a checkpoint, or else of the bundle `source`, of which a GFNet needs images."""
    if checkpoint is not None:
        return litert_bundle(export_checkpoint(checkpoint, settings))
    _check_bundle_options(replace(settings, data=None))
    bundle = load_bundle(source)
    if settings.data is None and bundle.manifest.precision == "int8":
        raise InputError(
            f"{source or 'the embedded bundle'} is in dynamic int8, whose ranges LiteRT needs beforehand: pass "
            "--data DIR with a folder for each class"
        )
    images = None if settings.data is None else calibration_images(_preprocess_of(bundle), settings.data)
    return litert_bundle(bundle, images)


def _check_bundle_options(settings: ExportSettings) -> None:
    """Raise InputError for options that would change a bundle."""
    options = [name for name, value in vars(settings).items() if value is not None]
    if options:
        raise InputError(f"a bundle keeps its {', '.join(options)}: leave out --{options[0].replace('_', '-')}")


def _check_calibration(settings: ExportSettings, form: str) -> None:
    """Raise InputError unless images are given where they are of use, and only there."""
    if form == LITERT and settings.precision == "int8":
        raise InputError(f"{settings.precision} is dynamic: for LiteRT pass --precision {INT8_STATIC} or fp32")
    if settings.precision == INT8_STATIC:
        if form == ONNX:
            raise InputError(f"{INT8_STATIC} is for TorchScript: in ONNX, --precision int8 with --data is static")
        if settings.data is None:
            raise InputError(f"{INT8_STATIC} sets its ranges by images: pass --data DIR with a folder for each class")
    elif settings.data is not None and (form not in (ONNX, LITERT) or settings.precision == "fp32"):
        raise InputError(
            f"--data is for static int8: pass --precision {INT8_STATIC} with it, or --format onnx and no fp32"
        )


def _preprocess_of(bundle: Bundle) -> Preprocess:
    return bundle.manifest.preprocess


def calibration_images(preprocess: Preprocess, data: Path | ImageFolder, most: int = CALIBRATION_IMAGES) -> Tensor:
    """Images of class folders as a network reads them, spread over all: (N, 3, S, S)."""
    data = open_data(data).data if isinstance(data, Path) else data
    count = min(len(data), most)
    return torch.stack([preprocess(data.source(i * len(data) // count)) for i in range(count)])


def export_coreml(source: Path | None, settings: ExportSettings, output: Path) -> str:
    """Write a checkpoint, or what a bundle's weights give back, as a Core ML model; returns what it is in words.

    Raises: CheckpointError, ModelError, InputError.
    """
    if settings.exits or settings.thresholds is not None or settings.data is not None or settings.precision == "int8":
        raise InputError("a Core ML model has the full depth in floats: leave out exits, thresholds, int8 and images")
    if source is None or is_bundle(source):
        model, card = training_network(load_bundle(source))
        labels, preprocess = card.classes, card.preprocess
    else:
        model, labels, preprocess = checkpoint_network(source, settings)
    save_coreml(model, labels, preprocess, output)
    return f"{model.name} fp32, {len(labels)} classes, Core ML"


def checkpoint_network(path: Path, settings: ExportSettings) -> tuple[nn.Module, list[str], Preprocess]:
    """The network in a checkpoint, its labels and how its images are prepared. Raises CheckpointError, ModelError."""
    if is_torchscript(path):
        model = fused_network(path, settings.model, settings.image_size)
        names = [str(index) for index in range(model.num_classes)]
        card = Card(model.name, model.arguments, names, Preprocess(size=model.image_size))
    else:
        card = card_of(path, model=settings.model, image_size=settings.image_size, exits=settings.exits)
        model = create_model(card.model, **card.arguments)
        if not hasattr(model, "forward_exits"):
            raise ModelError(f"{card.model} is no chain of stages known here, and no bundle can be made of it")
        load_checkpoint(model, path)
    options = {"crop": settings.crop, "mean": settings.mean, "std": settings.std}
    preprocess = replace(
        card.preprocess,
        size=model.image_size,
        **{name: value for name, value in options.items() if value is not None},
    )
    return model.eval(), settings.labels or card.classes, preprocess


def export_checkpoint(path: Path, settings: ExportSettings) -> Bundle:
    """The bundle of the checkpoint at `path`. Raises CheckpointError, ModelError."""
    model, labels, preprocess = checkpoint_network(path, settings)
    exits = model.exit_blocks if settings.exits is None else settings.exits
    thresholds, chosen = settings.thresholds, "given by hand at export"
    if thresholds is None:
        thresholds, chosen = DEFAULT_THRESHOLD, UNCHOSEN
    if isinstance(thresholds, (int, float)):
        thresholds = [float(thresholds)] * len(exits)
    return build_bundle(
        model,
        exits=exits,
        thresholds=thresholds,
        precision=settings.precision or "int8",
        labels=labels,
        preprocess=preprocess,
        notes={"checkpoint": path.name, "thresholds_chosen": chosen},
        calibration=None if settings.precision != INT8_STATIC else calibration_images(preprocess, settings.data),
    )

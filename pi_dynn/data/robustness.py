"""Copies of ImageNet-C, -A, -R and -Sketch, and the mapping of their classes to those of a network."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pi_dynn.data.corruptions import GROUPS, SEVERITIES
from pi_dynn.data.folders import ImageFolder, open_image_folder
from pi_dynn.errors import DatasetError

_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class RobustnessLayout:
    """One published set of hard images, in folders named by WordNet id; sizes are those of its paper."""

    name: str
    title: str
    num_classes: int
    images: int


LAYOUTS = {
    layout.name: layout
    for layout in (
        RobustnessLayout("imagenet-c", "ImageNet-C", 1000, 50_000),  # for each corruption and severity
        RobustnessLayout("imagenet-a", "ImageNet-A", 200, 7_500),
        RobustnessLayout("imagenet-r", "ImageNet-R", 200, 30_000),
        RobustnessLayout("imagenet-sketch", "ImageNet-Sketch", 1000, 50_889),
    )
}


@dataclass(frozen=True)
class HardImages:
    """One part of a robustness set: a corruption at a severity, or the whole set (both None)."""

    corruption: str | None
    severity: int | None
    data: ImageFolder


def wnids_of(labels: Sequence[str]) -> list[str]:
    """The WordNet id that each label begins with, such as `n01440764 tench`.

    Raises: DatasetError if one has none.
    """
    matches = [(label, _WNID.match(label)) for label in labels]
    nameless = [label for label, match in matches if match is None]
    if nameless:
        raise DatasetError(
            f"class {nameless[0]!r} does not begin with a WordNet id such as n01440764: give a file with "
            "one per class, in the network's order, by --wnids"
        )
    return [match[0] for _, match in matches if match is not None]


def read_wnids(path: str | Path, classes: int) -> list[str]:
    """WordNet ids of a file that has one line for each of so many classes. Raises DatasetError."""
    try:
        lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); check the path") from error
    if len(lines) != classes:
        raise DatasetError(f"{path}: has {len(lines)} lines for the bundle's {classes} classes: give one for each")
    return wnids_of(lines)


def open_hard_images(
    root: str | Path, name: str, labels: Sequence[str], wnids: Sequence[str], partial: bool = False
) -> list[HardImages]:
    """The parts of the set `name` below `root`; `wnids` maps their class folders to `labels`.

    The corruptions of ImageNet-C may be in folders of their groups or not; the other sets have one part. A set with
    a subset of the classes, such as ImageNet-A and -R, has those classes only.

    Raises: DatasetError for an unknown set, an unknown class or, unless `partial`, missing images.
    """
    if name not in LAYOUTS:
        raise DatasetError(f"no robustness set is named {name!r}: choose from {', '.join(LAYOUTS)}")
    layout, root = LAYOUTS[name], Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; expected a copy of {layout.title}")
    places = _corrupted(root) if name == "imagenet-c" else [(None, None, root)]
    if not places:
        raise DatasetError(
            f"{root}: holds no folder <corruption>/<severity>/<class>; expected a copy of {layout.title}"
        )
    label_of = dict(zip(wnids, labels, strict=True))
    return [
        HardImages(corruption, severity, _renamed(open_image_folder(place), label_of, layout, partial))
        for corruption, severity, place in places
    ]


def _corrupted(root: Path) -> list[tuple[str, int, Path]]:
    """The corruptions, severities and folders that exist, in the published order."""
    folders = []
    for group, names in GROUPS.items():
        for name in names:
            for place in (root / name, root / group / name):
                folders += [(name, level, place / str(level)) for level in SEVERITIES if (place / str(level)).is_dir()]
    return folders


def _renamed(data: ImageFolder, label_of: dict[str, str], layout: RobustnessLayout, partial: bool) -> ImageFolder:
    strange = [name for name in data.classes if name not in label_of]
    if strange:
        raise DatasetError(f"{data.root}: class {strange[0]!r} is none of the network's {len(label_of)} WordNet ids")
    if not partial and (len(data.classes), len(data)) != (layout.num_classes, layout.images):
        raise DatasetError(
            f"{data.root}: has {len(data):,} images of {len(data.classes)} classes, {layout.title} has "
            f"{layout.images:,} of {layout.num_classes}: copy the rest, or allow a part with --partial"
        )
    return replace(data, classes=[label_of[name] for name in data.classes])

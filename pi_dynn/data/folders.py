"""Labelled images in one folder per class, and saved splits of them."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pi_dynn.data.decode import SUFFIXES, decode_image
from pi_dynn.errors import DatasetError, InputError
from pi_dynn.files import write_text
from pi_dynn.records import Record, read_record
from pi_dynn.text import counted


@dataclass(frozen=True)
class ImageFolder:
    """Image paths with the index of their class; classes are the sorted names of the sub-folders."""

    root: Path
    classes: list[str]
    paths: list[Path]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.paths)

    def picture(self, i: int) -> Image.Image:
        """Image number `i` as 8-bit RGB. Raises InputError naming a bad file."""
        return decode_image(self.paths[i])

    def source(self, i: int) -> Path | Image.Image:
        """Image number `i` as an argument of a Preprocess."""
        return self.paths[i]

    def relative(self, i: int) -> str:
        """The path of image number `i` below the root, as splits have it."""
        return self.paths[i].relative_to(self.root).as_posix()

    def subset(self, indices: list[int]) -> "ImageFolder":
        """The images at `indices`, in that order, with all classes."""
        return ImageFolder(self.root, self.classes, [self.paths[i] for i in indices], [self.labels[i] for i in indices])


def walk_images(folder: Path) -> Iterator[Path]:
    """Image files below `folder`, lazily, sorted within each folder. Raises: InputError for a folder it cannot read."""
    for found in walk_readable(folder):
        if isinstance(found, InputError):
            raise found
        yield found


def walk_readable(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path | InputError]:
    """As `walk_images`, with an error in the place of a folder that cannot be read.

    A link to a folder that holds it is not followed, or there were no end; `above` are the folders that were entered.
    """
    try:
        entered = (*above, folder.resolve())
        paths = sorted(folder.iterdir())
    except OSError as error:
        yield InputError(f"{folder}: cannot be read ({error.strerror}); check its permissions")
        return
    for path in paths:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if not (path.is_symlink() and path.resolve() in entered):
                yield from walk_readable(path, entered)
        elif path.suffix.lower() in SUFFIXES:
            yield path


def open_image_folder(root: str | Path) -> ImageFolder:
    """The data set below `root`. Raises DatasetError if there are no class folders or one is empty."""
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; give a folder that holds one folder per class")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DatasetError(f"{root}: holds no class folders; expected {root}/<class>/<image>")
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        images = list(walk_images(folder))
        if not images:
            raise DatasetError(f"{folder}: the class folder holds no images; add some or remove it")
        paths += images
        labels += [label] * len(images)
    return ImageFolder(root, [folder.name for folder in folders], paths, labels)


def stratified_split(data: ImageFolder, parts: Mapping[str, float], seed: int) -> dict[str, list[str]]:
    """Paths relative to the root per named part, with the same proportions in each class.

    `parts` gives the share of each part but the last, which gets the rest (its share is ignored).
    """
    rng = np.random.default_rng(seed)
    split: dict[str, list[str]] = {name: [] for name in parts}
    labels = np.asarray(data.labels)
    for label in range(len(data.classes)):
        members = rng.permutation(np.flatnonzero(labels == label))
        start = 0
        for name, share in list(parts.items())[:-1]:
            stop = start + round(share * len(members))
            split[name] += [data.relative(i) for i in sorted(members[start:stop])]
            start = stop
        split[list(parts)[-1]] += [data.relative(i) for i in sorted(members[start:])]
    return split


@dataclass(frozen=True)
class Split(Record):
    """The images of each part by their paths below the data set's folder, and the seed of the split."""

    KIND = "split"

    parts: dict[str, list[str]]
    seed: int | None = None


def save_split(path: str | Path, split: Mapping[str, list[str]], seed: int) -> None:
    """Write a split as JSON, so that every later run uses the same images."""
    write_text(path, json.dumps(Split(dict(split), seed).to_dict(), indent=1) + "\n")


def load_split(path: str | Path, data: ImageFolder) -> dict[str, ImageFolder]:
    """The parts of a saved split. Raises DatasetError if an image of it is missing from `data`.

    An image may be there in another format: a split made of JPEG copies serves for the TIFF files of the archive.
    """
    parts = read_record(Split, path, DatasetError, "make one with `pi-dynn train`, or give another").parts
    index = {data.relative(i): i for i in range(len(data))}
    without_suffix = Counter(_stem(name) for name in index)
    stems = {_stem(name): i for name, i in index.items() if without_suffix[_stem(name)] == 1}
    named = {name for names in parts.values() for name in names}
    index = {name: stems[_stem(name)] for name in named if _stem(name) in stems} | index
    missing = [name for names in parts.values() for name in names if name not in index]
    if missing:
        raise DatasetError(
            f"{path}: {counted(len(missing), 'image')} of the split not found in {data.root}, first {missing[0]}; "
            "put it back, or leave --split out"
        )
    return {part: data.subset([index[name] for name in names]) for part, names in parts.items()}


def _stem(name: str) -> str:
    return str(Path(name).with_suffix(""))

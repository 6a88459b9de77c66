"""The photographs `learn` works with: looked at, shared out into parts, and described."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pi_dynn.data.folders import ImageFolder, load_split, save_split
from pi_dynn.data.groups import grouped_split
from pi_dynn.data.layouts import OpenedData, open_data
from pi_dynn.data.look import FolderLook, LookedAt, look_at
from pi_dynn.errors import DatasetError
from pi_dynn.files import file_sha256, write_text
from pi_dynn.train.data import LEAST_IMAGES, files_sha256
from pi_dynn.train.learn.settings import LearnSettings

SHARES = {"test": 0.15, "calibrate": 0.15, "train": 0.7}


@dataclass(frozen=True)
class LearnData:
    """The usable images in their parts, what was found in the folder, and a record of both for manifests."""

    look: FolderLook
    parts: dict[str, ImageFolder]
    split: Path
    record: dict[str, Any]

    @property
    def train(self) -> ImageFolder:
        """What is trained on."""
        return self.parts["train"]

    @property
    def calibrate(self) -> ImageFolder:
        """What is chosen by."""
        return self.parts["calibrate"]

    @property
    def test(self) -> ImageFolder:
        """What is reported on."""
        return self.parts["test"]

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return self.train.classes

    @property
    def counts(self) -> dict[str, int]:
        """Images of every part."""
        return {name: len(part) for name, part in self.parts.items()}


def open_learn_data(settings: LearnSettings) -> LearnData:
    """Look at the folder and share it out as the split says; without one, split it and write that to the run's folder.

    A run that is resumed keeps the split it has written. A part named `test` of the folder itself is kept apart.

    Raises: DatasetError for images that cannot be learned from, or a part that is too small.
    """
    folder, work = settings.folder, settings.work
    opened = open_data(folder, settings.layout, settings.partial)
    if not opened.data.paths:
        raise DatasetError(f"{folder}: holds no image files; learn reads one folder of images per class")
    looked = look_at(opened.data)
    write_text(work / "look.json", json.dumps(looked.look.to_dict(), indent=1) + "\n")
    file = settings.split or work / "split.json"
    if settings.split is None and not (settings.resume and file.exists()):
        _write_split(file, looked, opened.held_out is not None, settings.seed)
    usable = set(looked.data.paths)
    parts = {
        name: part.subset([i for i, path in enumerate(part.paths) if path in usable])
        for name, part in load_split(file, opened.data).items()
    }
    if opened.held_out is not None:
        parts["test"] = opened.held_out
    for name in SHARES:
        if len(parts.get(name, ())) < LEAST_IMAGES:
            raise DatasetError(f"{file}: its part {name!r} has fewer than {LEAST_IMAGES} images")
    record = {
        "root": folder.name,
        "classes": len(looked.data.classes),
        "images": len(looked.data),
        "files_sha256": files_sha256(OpenedData(looked.data)),
        "split_sha256": file_sha256(file),
    }
    seen = {name: part for name, part in parts.items() if part is not opened.held_out}
    look = replace(looked.look, advice=[*looked.look.advice, *_leaks(looked.look, seen)])
    return LearnData(look, {name: parts[name] for name in SHARES}, file, record)


def _leaks(look: FolderLook, parts: dict[str, ImageFolder]) -> list[str]:
    """A sentence where a split tears apart what looks alike: the test would ask for what was learned by heart."""
    place = {part.relative(i): name for name, part in parts.items() for i in range(len(part))}
    torn = [group for group in look.together if len({place[path] for path in group if path in place}) > 1]
    if not torn:
        return []
    shown = ", ".join(torn[0][:3])
    return [f"the split parts pictures that look alike, such as {shown}: the accuracy will look too good"]


def _write_split(file: Path, looked: LookedAt, has_test: bool, seed: int) -> None:
    shares = {name: share for name, share in SHARES.items() if not (has_test and name == "test")}
    data = looked.data
    parts = grouped_split(looked.groups, data.labels, shares, seed)
    save_split(file, {name: [data.relative(i) for i in members] for name, members in parts.items()}, seed)

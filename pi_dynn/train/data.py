"""The images of a training job: opened, split once, and described."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pi_dynn.data.folders import ImageFolder, load_split, save_split, stratified_split
from pi_dynn.data.layouts import OpenedData, layout_named, open_data
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import DatasetError, InputError
from pi_dynn.files import file_sha256
from pi_dynn.train.images import decode_all
from pi_dynn.train.processes import Processes

LEAST_IMAGES = 2  # images in a part, so that its figures mean something


@dataclass(frozen=True)
class DataSettings:
    """The images and their split. A share of 0 leaves a part out; None takes the published one."""

    root: Path
    layout: str | None = None
    partial: bool = False
    split: Path | None = None
    test_share: float | None = None
    calibrate_share: float = 0.15
    seed: int = 0

    @property
    def shares(self) -> dict[str, float]:
        """Share of every part of a folder without parts of its own."""
        test = self.test_share
        if test is None:
            test = 0.15 if self.layout is None else layout_named(self.layout).held_out_share
        return {"test": test, "calibrate": self.calibrate_share, "train": 1 - test - self.calibrate_share}


@dataclass(frozen=True)
class TrainData:
    """The training, held-out and test images (None: none); `record` describes them for a manifest."""

    train: ImageFolder
    calibrate: ImageFolder
    test: ImageFolder | None
    record: dict

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return self.train.classes

    @property
    def counts(self) -> dict[str, int]:
        """Images of every part."""
        parts = {"train": self.train, "calibrate": self.calibrate, "test": self.test}
        return {name: len(part) for name, part in parts.items() if part is not None}


def open_train_data(settings: DataSettings, out: Path, processes: Processes) -> TrainData:
    """The images, split by the split file; without one a new split is written to `out`.

    Raises: DatasetError for images that are missing, or a part that is empty.
    """
    opened = open_data(settings.root, settings.layout, settings.partial)
    path = settings.split or out / "split.json"
    if processes.first and not path.exists():
        _write_split(path, opened, settings)
    processes.wait()
    parts = load_split(path, opened.data)
    missing = [name for name in ("train", "calibrate") if len(parts.get(name, ())) < LEAST_IMAGES]
    if missing:
        raise DatasetError(
            f"{path}: its part {missing[0]!r} has fewer than {LEAST_IMAGES} images; "
            "give larger shares, or a split with the parts train, calibrate and test"
        )
    test = opened.held_out if opened.held_out is not None else parts.get("test")
    test = test if test is not None and len(test) else None
    record = {
        "root": settings.root.name,
        "layout": settings.layout,
        "classes": len(opened.data.classes),
        "images": opened.images,
        "files_sha256": files_sha256(opened),
        "split_sha256": file_sha256(path),
    }
    return TrainData(parts["train"], parts["calibrate"], test, record)


def _write_split(path: Path, opened: OpenedData, settings: DataSettings) -> None:
    shares = settings.shares
    if min(shares.values()) < 0 or shares["train"] <= 0:
        raise InputError(f"shares {shares} leave nothing to train on: lower --test-share or --calibrate-share")
    if opened.held_out is not None:
        del shares["test"]  # the data set has its own
    save_split(path, stratified_split(opened.data, shares, settings.seed), settings.seed)


def files_sha256(opened: OpenedData) -> str:
    """sha256 over the names and sizes of all image files, or the pixels where they are no files of their own.

    Reading every file of a large set would take longer than an epoch; a changed or missing file nearly always
    shows in its size.
    """
    digest = hashlib.sha256()
    for data in filter(None, (opened.data, opened.held_out)):
        pixels = getattr(data, "pixels", None)
        if pixels is not None:
            digest.update(np.ascontiguousarray(pixels))
        for path in data.paths:
            size = path.stat().st_size if pixels is None else 0
            digest.update(f"{path.relative_to(data.root).as_posix()}\0{size}\n".encode())
    return digest.hexdigest()


def held_out_tensors(part: ImageFolder, preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    """The network's input (N, 3, H, W) and the labels (N,) of a part, without augmentation."""
    pixels = decode_all(part, preprocess).permute(0, 2, 3, 1).numpy()
    return preprocess.tensor(pixels), torch.tensor(part.labels)

#!/usr/bin/env python3
"""Decode all training images once into uint8 memory maps, so that an epoch reads pixels and never decodes.

    python scripts/embedded/pack.py --data DATA --packed PACKED

Writes PACKED/NAME.npy (N, 3, S, S) and PACKED/NAME.json (class names and one label per image) for every set.
UC Merced's training part is packed in full size to train on (`ucm_train`: the teacher sees more there) and at 128 px
to fit probes on (`ucm_probe`), its calibration part at 128 px to measure them (`ucm_calibrate`). The test part is
never read.
"""

import argparse
import io
import json
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

TRAINING_SETS = ("tiny_imagenet", "cifar10", "aid", "rsscn7", "ucm_train")
FITTED_SET, CALIBRATION_SET = "ucm_probe", "ucm_calibrate"
SIZES = {"tiny_imagenet": 64, "cifar10": 32, "aid": 128, "rsscn7": 128, "ucm_train": 256}  # as they are stored
MEASURED_AT = 128  # what only measures is packed as the shipped preprocessing gives it
DECODED_AT_ONCE = 512  # images in flight between the readers and the map


@dataclass(frozen=True)
class Packed:
    """One decoded set: pixels (N, 3, S, S) uint8 on disk, labels (N,), class names."""

    name: str
    pixels: np.ndarray
    labels: np.ndarray
    classes: list[str]

    def __len__(self) -> int:
        return len(self.labels)


def square(picture: Image.Image, size: int) -> np.ndarray:
    """The largest centred square of a picture as uint8 (3, size, size), resized as the shipped preprocessing does."""
    picture = picture.convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    pixels = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box, reducing_gap=3.0))
    return pixels.transpose(2, 0, 1)


def zipped_images(folder: Path) -> list[tuple[str, Path, str]]:
    """(class, archive, member) of every image in the zip files of `folder`, in a fixed order."""
    members = []
    for archive in sorted(folder.glob("*.zip")):
        with zipfile.ZipFile(archive) as stored:
            names = sorted(name for name in stored.namelist() if not name.endswith("/"))
        members += [(Path(name).parent.name, archive, name) for name in names]
    return members


def read_zipped(members: list[tuple[str, Path, str]]) -> Iterator[bytes]:
    """The bytes of each member; every archive is opened once, as they come in order."""
    opened, stored = None, None
    for _, archive, name in members:
        if archive != opened:
            opened, stored = archive, zipfile.ZipFile(archive)
        yield stored.read(name)


def folder_images(folder: Path) -> list[Path]:
    """Every image below `folder`, one folder per class, in a fixed order."""
    return sorted(path for path in folder.glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))


def write_map(path: Path, size: int, count: int, data: Iterator[bytes]) -> None:
    """Decode `count` images into the memory map at `path`, which appears only when it is whole."""
    unfinished = path.with_suffix(".part")
    pixels = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=(count, 3, size, size))
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := [picture for picture, _ in zip(data, range(DECODED_AT_ONCE))]:
            decoded = pool.map(lambda each: square(Image.open(io.BytesIO(each)), size), chunk)
            for picture in decoded:
                pixels[done] = picture
                done += 1
    pixels.flush()
    unfinished.replace(path)


def pack(name: str, packed: Path, labels: list[str], data: Iterator[bytes]) -> None:
    """Write one set, unless it is there: the map first, then the labels that say it is whole."""
    if (packed / f"{name}.json").exists():
        return
    classes = sorted(set(labels))
    size = SIZES.get(name, MEASURED_AT)
    write_map(packed / f"{name}.npy", size, len(labels), data)
    numbers = {label: number for number, label in enumerate(classes)}
    record = {"classes": classes, "labels": [numbers[label] for label in labels]}
    unfinished = packed / f"{name}.json.part"
    unfinished.write_text(json.dumps(record))
    unfinished.replace(packed / f"{name}.json")
    print(f"{name}: {len(labels)} images, {len(classes)} classes, {size} px", flush=True)


def pack_all(data: Path, split: Path, packed: Path) -> None:
    """Pack every set below `data`; of UC Merced the parts `train` and `calibrate` of the split."""
    packed.mkdir(parents=True, exist_ok=True)
    members = zipped_images(data / "tiny_imagenet")
    pack("tiny_imagenet", packed, [label for label, _, _ in members], read_zipped(members))
    for name in ("aid", "rsscn7", "cifar10"):
        paths = folder_images(data / name)
        pack(name, packed, [path.parent.name for path in paths], (path.read_bytes() for path in paths))
    parts = json.loads(split.read_text())["parts"]
    for name, part in (("ucm_train", "train"), (FITTED_SET, "train"), (CALIBRATION_SET, "calibrate")):
        paths = [data / "ucm" / relative for relative in parts[part]]
        pack(name, packed, [path.parent.name for path in paths], (path.read_bytes() for path in paths))


def open_packed(name: str, packed: Path) -> Packed:
    """A set that `pack_all` wrote; its pixels stay on disk until they are read."""
    record = json.loads((packed / f"{name}.json").read_text())
    pixels = np.load(packed / f"{name}.npy", mmap_mode="r")
    return Packed(name, pixels, np.array(record["labels"]), record["classes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with ucm, aid, rsscn7, cifar10, tiny_imagenet")
    parser.add_argument("--split", type=Path, default=Path("calibration/ucm_split.json"), help="parts of UC Merced")
    parser.add_argument("--packed", type=Path, default=Path("runs/embedded/packed"), help="where the maps go")
    arguments = parser.parse_args()
    pack_all(arguments.data, arguments.split, arguments.packed)


if __name__ == "__main__":
    main()

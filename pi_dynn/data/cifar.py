"""CIFAR-10 as downloaded: the Python batches or the binary version, read as data, never as code.

The Python batches are pickles, and a pickle can call any function. The unpickler here replaces the three names in
the published files by inert classes and refuses all others, so a file calls nothing of NumPy or any other module.

Source: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import io
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from pi_dynn.data.folders import ImageFolder
from pi_dynn.errors import DatasetError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_FILE = "test_batch"
FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")
PIXELS = 3 * 32 * 32
Batch = tuple[np.ndarray, np.ndarray]  # pixels (N, 32, 32, 3) and labels (N,)
LARGEST_FILE = 64_000_000  # a published batch has 31 MB


@dataclass(frozen=True)
class ArrayImages(ImageFolder):
    """Labelled images in memory, uint8 (N, H, W, 3); their paths are names, not files."""

    pixels: np.ndarray

    def picture(self, i: int) -> Image.Image:
        """Image number `i`."""
        return Image.fromarray(self.pixels[i])

    def source(self, i: int) -> Image.Image:
        """Image number `i`; there is no file."""
        return self.picture(i)

    def subset(self, indices: list[int]) -> "ArrayImages":
        chosen = super().subset(indices)
        return replace(self, paths=chosen.paths, labels=chosen.labels, pixels=self.pixels[indices])


def cifar_folder(root: Path) -> Path | None:
    """The folder with CIFAR-10 batches at or below `root`; None if there is none."""
    for folder in (root, *(root / name for name in FOLDERS)):
        if any((folder / f"{name}{suffix}").is_file() for name in (*TRAIN_FILES, TEST_FILE) for suffix in ("", ".bin")):
            return folder
    return None


def open_cifar(folder: Path) -> dict[str, ArrayImages]:
    """The published parts, "train" and "test". Raises DatasetError for a missing or damaged file."""
    suffix = ".bin" if (folder / f"{TEST_FILE}.bin").exists() or (folder / f"{TRAIN_FILES[0]}.bin").exists() else ""
    files = {"train": [name + suffix for name in TRAIN_FILES], "test": [TEST_FILE + suffix]}
    missing = [name for names in files.values() for name in names if not (folder / name).is_file()]
    if missing:
        raise DatasetError(
            f"{folder}: {len(missing)} of the 6 files of CIFAR-10 are missing, first {missing[0]}; "
            "expected data_batch_1 to data_batch_5 and test_batch"
        )
    read = read_binary_batch if suffix else read_python_batch
    return {part: _joined(folder, names, read) for part, names in files.items()}


def _joined(folder: Path, names: list[str], read: Callable[[Path], Batch]) -> ArrayImages:
    batches = [read(folder / name) for name in names]
    labels = np.concatenate([batch[1] for batch in batches])
    pixels = np.concatenate([batch[0] for batch in batches])
    paths = [
        folder / f"{name}-{i:05d}-{CLASSES[label]}"
        for name, (_, batch_labels) in zip(names, batches, strict=True)
        for i, label in enumerate(batch_labels)
    ]
    return ArrayImages(folder, list(CLASSES), paths, labels.tolist(), pixels)


def read_binary_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 32, 32, 3) and labels (N,) of a file of records of one label and 3072 colours.

    Raises: DatasetError for a file of another length or with other labels.
    """
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if data.size == 0 or data.size % (PIXELS + 1):
        raise DatasetError(f"{path}: {data.size} bytes are no CIFAR-10 batch of records of {PIXELS + 1}; copy it again")
    records = data.reshape(-1, PIXELS + 1)
    return _checked(path, records[:, 1:], records[:, 0])


def read_python_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 32, 32, 3) and labels (N,) of a pickled batch, without running its code.

    Raises: DatasetError for a damaged file, or one with names that no published batch has.
    """
    if path.stat().st_size > LARGEST_FILE:
        raise DatasetError(f"{path}: {path.stat().st_size / 1e6:.0f} MB is no CIFAR-10 batch; copy it again")
    try:
        content = _InertUnpickler(io.BytesIO(path.read_bytes())).load()
        data = content.get(b"data", content.get("data"))
        labels = content.get(b"labels", content.get("labels"))
        return _checked(path, data.to_array(), np.asarray(labels, dtype=np.int64))
    except DatasetError as error:
        raise DatasetError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise DatasetError(f"{path}: damaged, or no CIFAR-10 batch ({error}); copy it again") from error


def _checked(path: Path, data: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if data.ndim != 2 or data.shape != (len(labels), PIXELS) or labels.ndim != 1 or len(labels) == 0:
        raise DatasetError(
            f"{path}: {data.shape} pixels and {labels.shape} labels are no CIFAR-10 batch; copy it again"
        )
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise DatasetError(f"{path}: label {labels.max()} is none of CIFAR-10's {len(CLASSES)}; copy it again")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64)


class _Array:
    """The replacement of `numpy.ndarray`: it keeps its pickled state."""

    def __init__(self, *arguments: object) -> None:
        self.state: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        self.state = state

    def to_array(self) -> np.ndarray:
        """The uint8 matrix. Raises DatasetError if it is of another type or shape."""
        _, shape, kind, fortran, data = self.state
        if isinstance(data, str):  # a pickle of Python 2 that was read as text
            data = data.encode("latin1")
        if not isinstance(data, bytes) or getattr(kind, "name", None) != "u1" or len(shape) != 2 or fortran:
            raise DatasetError("its pixels are no matrix of bytes")
        return np.frombuffer(data, np.uint8).reshape(shape)


class _Type:
    """The replacement of `numpy.dtype`: it keeps its name."""

    def __init__(self, name: object, *arguments: object) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: tuple) -> None:
        return


def _reconstruct(*arguments: object) -> _Array:
    return _Array()


def _encode(text: object, *arguments: object) -> bytes:
    return str(text).encode("latin1")


class _InertUnpickler(pickle.Unpickler):
    """An unpickler of plain values and the replacements; it refuses any other name."""

    KNOWN = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
        ("_codecs", "encode"): _encode,
    }

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, encoding="bytes")

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.KNOWN:
            raise DatasetError(f"refused: it would use {module}.{name}, and only arrays of bytes are read")
        return self.KNOWN[module, name]

    def persistent_load(self, pid: object) -> Iterator:
        raise DatasetError("refused: it refers to objects outside the file")

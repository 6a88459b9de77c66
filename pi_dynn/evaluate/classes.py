"""Evaluation by class: confusion matrix, accuracy of each class, and the wrong pictures."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pi_dynn.calibrate.outcomes import leave_at
from pi_dynn.calibrate.scores import softmax
from pi_dynn.data.folders import ImageFolder
from pi_dynn.errors import InputError
from pi_dynn.evaluate.outputs import ExitOutputs, rejected_samples
from pi_dynn.evaluate.records import ClassResult, ClassRow, WrongImage
from pi_dynn.runtime.manifest import Manifest

_MAX_NAME_BYTES = 200  # bytes, of the 255 a file system allows: a suffix and a number have to fit too


def class_result(
    data: ImageFolder, outputs: ExitOutputs, thresholds: list[float], manifest: Manifest, bundle: str
) -> ClassResult:
    """The answers at `thresholds` counted by class, and the wrong ones; `outputs` are those of `data`."""
    exits = leave_at(outputs.scores, thresholds)
    logits = outputs.answerable(outputs.logits[exits, np.arange(len(exits))]).astype(np.float64)
    answers = logits.argmax(-1)
    probabilities = softmax(logits).max(-1)
    matrix = confusion_matrix(outputs.labels, answers, len(manifest.labels))
    wrong = np.flatnonzero(answers != outputs.labels)
    rejected = rejected_samples(outputs, exits, manifest.rejection)
    of_class = None if rejected is None else np.bincount(outputs.labels[rejected], minlength=len(manifest.labels))
    return ClassResult(
        dataset=str(data.root),
        images=len(exits),
        labels=manifest.labels,
        matrix=matrix.tolist(),
        classes=class_rows(manifest.labels, matrix, of_class),
        wrong=[
            WrongImage(
                path=str(data.paths[outputs.places[i]]),
                label=manifest.labels[outputs.labels[i]],
                answer=manifest.labels[answers[i]],
                probability=float(probabilities[i]),
                exit_index=int(exits[i]),
                block_index=manifest.blocks[exits[i]],
            )
            for i in sorted(wrong, key=lambda i: -probabilities[i])
        ],
        thresholds=thresholds,
        bundle=bundle,
    )


def confusion_matrix(labels: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """Images (C, C) by true class (rows) and answer (columns), from labels (N,) and answers (N,)."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (labels, answers), 1)
    return matrix


def class_rows(labels: Sequence[str], matrix: np.ndarray, rejected: np.ndarray | None = None) -> list[ClassRow]:
    """A row for each class of a confusion matrix (C, C), in the order of `labels`; `rejected` images (C,) of each."""
    rows = []
    for k, label in enumerate(labels):
        images, answered, right = int(matrix[k].sum()), int(matrix[:, k].sum()), int(matrix[k, k])
        others = matrix[k].copy()
        others[k] = 0
        most = int(others.argmax())
        rows.append(
            ClassRow(
                label=label,
                images=images,
                right=right,
                accuracy=right / images if images else None,
                precision=right / answered if answered else None,
                taken_for=labels[most] if others[most] else None,
                taken_count=int(others[most]),
                rejected=None if rejected is None else int(rejected[k]),
            )
        )
    return rows


def check_wrong_folder(folder: Path, dataset: Path) -> None:
    """Refuse a folder that pictures cannot be sorted into. Raises: InputError if it holds something, or is data.

    Pictures of an earlier run would be taken for answers of this one.
    """
    place, root = folder.resolve(), dataset.resolve()
    if place == root or root in place.parents:
        raise InputError(f"{folder}: lies in the data set, where it would be taken for a class; give another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already and not empty; remove it, or give another folder")


def sort_wrong(wrong: Sequence[WrongImage], folder: Path, data: ImageFolder | None = None) -> int:
    """Link the pictures into `folder`/<true class>/<answer>/; returns how many had to be copied.

    Pictures of `data` that are no files of their own are written as PNG.

    Raises: InputError if the folder cannot be written.
    """
    copies = 0
    number = {} if data is None else {str(path): i for i, path in enumerate(data.paths)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for image in wrong:
            place = folder / _file_name(image.label) / _file_name(image.answer)
            place.mkdir(parents=True, exist_ok=True)
            source = Path(image.path).resolve()
            if data is not None and not source.exists():
                data.picture(number[image.path]).save(_free_name(place, Path(f"{image.path}.png")))
                copies += 1
                continue
            target = _free_name(place, Path(image.path))
            try:
                target.symlink_to(source)
            except OSError:  # a FAT card, or Windows without the right to
                shutil.copyfile(source, target)
                copies += 1
    except OSError as error:
        raise InputError(f"{folder}: the wrong pictures cannot be put there ({error.strerror or error})") from error
    return copies


def _file_name(label: str) -> str:
    """A class as the name of one folder, whatever is in it."""
    name = re.sub(r"[\x00-\x1f/\\:]", "_", label).lstrip(".").strip()
    return name.encode()[:_MAX_NAME_BYTES].decode(errors="ignore") or "_"


def _free_name(place: Path, path: Path) -> Path:
    """A name in `place` that is not taken: two sub-folders of a class may hold files of the same name."""
    target, number = place / path.name, 2
    while target.is_symlink() or target.exists():
        target = place / f"{path.stem}-{number}{path.suffix}"
        number += 1
    return target

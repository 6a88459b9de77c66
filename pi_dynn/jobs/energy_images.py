"""The images an energy run answers, decoded beforehand: decoding is not what is being measured."""

from pathlib import Path

import numpy as np
import psutil
from torch import Tensor

from pi_dynn.data.folders import walk_images
from pi_dynn.errors import DatasetError
from pi_dynn.jobs.energy_trials import Candidate
from pi_dynn.runtime.session import Session

_MEMORY_SHARE = 0.25  # of what is free: the rest of a small board has to live too
_FLOAT_BYTES = 4


def load_candidate(session: Session, folder: Path, n: int | None, name: str | None = None) -> Candidate:
    """The session with the images below `folder`.

    Of a large folder a fair part is drawn, the same in every run: no more than `n` images, and no more than
    fit into a quarter of the free memory. Labels are known where every folder is named after a class.

    Raises: DatasetError if there are no images, InputError if one cannot be read.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; give a folder of images with --data")
    paths = list(walk_images(folder))
    if not paths:
        raise DatasetError(f"{folder}: the folder holds no images; add some or name another with --data")
    paths = _fair_part(paths, n, session.preprocess.size)
    manifest = session.manifest
    return Candidate(
        name=name or f"{manifest.model} {manifest.precision}",
        session=session,
        inputs=_decoded(session, paths),
        labels=_labels(paths, manifest.labels),
        dataset=folder.name,
        thresholds=session.resolve_thresholds(None),
    )


def _fair_part(paths: list[Path], n: int | None, size: int) -> list[Path]:
    """A shuffled part of `paths`, the same every time."""
    fitting = int(_MEMORY_SHARE * psutil.virtual_memory().available / (3 * size * size * _FLOAT_BYTES))
    count = min(len(paths), max(1, fitting), n if n is not None else len(paths))
    return [paths[i] for i in np.random.default_rng(0).permutation(len(paths))[:count]]


def _decoded(session: Session, paths: list[Path]) -> list[Tensor]:
    return [session.preprocess.load(path) for path in paths]


def _labels(paths: list[Path], labels: list[str]) -> list[int] | None:
    known = {label: index for index, label in enumerate(labels)}
    found = [known.get(path.parent.name) for path in paths]
    return None if None in found else found

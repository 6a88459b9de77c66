"""Which images are none of the classes: by the angle between an answer's logits and what the class usually gets.

An image of a known class gives logits that point where those of its class do, at whatever length; other images do not.
Shape letters: K exits including the last answer, N samples, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pi_dynn.errors import CalibrationError
from pi_dynn.records import Record


@dataclass(frozen=True)
class Rejection(Record):
    """Answers less like their nearest class than `limit` are "none of these".

    `class_means` (K, C, C) are the unit mean logits of each class at each exit. Of images like those it was calibrated
    with, `images` of them, at most the share `alpha` is rejected, on average over such calibrations.
    """

    KIND = "rejection"

    alpha: float
    limit: float
    images: int
    class_means: list[list[list[float]]]


def class_means(logits: ArrayLike, labels: ArrayLike, names: Sequence[str]) -> NDArray[np.float64]:
    """Unit mean logits (K, C, C) of each class at each exit, from logits (K, N, C) and labels (N,); C names.

    Raises: CalibrationError for a class without images.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    missing = [name for label, name in enumerate(names) if label not in labels]
    if missing:
        raise CalibrationError(f"class {missing[0]!r} has no image to learn its usual answer from: add some")
    means = np.stack([_unit(logits)[:, labels == label].mean(1) for label in range(len(names))], axis=1)
    return _unit(means)


def similarity(logits: ArrayLike, means: ArrayLike) -> NDArray[np.float64]:
    """Cosine (N,) between logits (N, C) and the nearest of the class means (C, C) of their exit."""
    cosines = _unit(np.asarray(logits, dtype=np.float64)) @ np.asarray(means).T
    nearest: NDArray[np.float64] = cosines.max(-1)
    return nearest


def exit_similarities(logits: ArrayLike, exits: ArrayLike, means: ArrayLike) -> NDArray[np.float64]:
    """Similarity (N,) of what each sample answers at the exit (N,) where it leaves, from logits (K, N, C)."""
    logits, exits, means = np.asarray(logits), np.asarray(exits), np.asarray(means)
    values = np.empty(len(exits))
    for k in range(len(logits)):
        here = exits == k
        values[here] = similarity(logits[k, here], means[k])
    return values


def fit_rejection(similarities: ArrayLike, means: ArrayLike, alpha: float) -> Rejection:
    """The limit below which an answer is rejected, from similarities (N,) of images that had no part in the means.

    With k = floor(alpha (N + 1)) it is the k-th smallest similarity. A new image like these is as likely to come in
    any place among them, so the probability that it lies below is at most k / (N + 1), whatever the distribution.

    Raises: CalibrationError for an `alpha` outside 0..1, or images too few to promise it.
    Source: split conformal prediction; Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005).
    """
    values = np.sort(np.asarray(similarities, dtype=np.float64))
    if not 0.0 < alpha < 1.0:
        raise CalibrationError(f"alpha={alpha}: give the share that may be rejected, between 0 and 1")
    rank = int(alpha * (len(values) + 1))
    if rank < 1:
        need = int(np.ceil(1.0 / alpha)) - 1
        raise CalibrationError(f"{len(values)} images cannot promise a share of {alpha:g}: {need} or more are needed")
    rounded = np.asarray(means, dtype=np.float64).round(5)
    return Rejection(alpha, float(values[rank - 1]), len(values), rounded.tolist())


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vectors at length 1; one of zeros stays."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float64] = vectors / np.where(length > 0.0, length, 1.0)
    return unit

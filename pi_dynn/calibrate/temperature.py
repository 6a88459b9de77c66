"""Temperature scaling of every exit, and the calibration error before and after.

Shape letters: K exits including the last answer, N samples, B bins.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pi_dynn.calibrate.records import ExitReliability, ReliabilityBin
from pi_dynn.calibrate.scores import softmax
from pi_dynn.errors import CalibrationError

SHARPEST, FLATTEST = 0.05, 20.0  # a fit that ends at a limit has failed
_FOLDS = 5
BINS = 15  # as in the published definition of the expected calibration error


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.int64], photographs: int | None = None) -> float:
    """The temperature T in 0.05..20 that maximises the likelihood of `labels` (N,) under logits (N, classes) / T.

    The true class counts as (M + 1) / (M + 2), where M is the number of `photographs` behind the images, and the others
    share the rest: of a few images that are all answered right the likelihood alone would make every answer certain.
    The loss is convex in 1 / T. Its derivative is the mean expected logit less the logit of the wanted probabilities;
    bisection finds its root.

    Raises: CalibrationError if there is no image or a logit is not a number.
    Source: Guo et al., On Calibration of Modern Neural Networks (2017), section 4.2; the counts of Platt, Probabilistic
    Outputs for Support Vector Machines (1999), section 2.2.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if len(logits) == 0:
        raise CalibrationError("an exit without images has no temperature: give it some")
    if not np.isfinite(logits).all():
        raise CalibrationError("some logits are NaN or infinite: the network or its inputs are broken")
    count = len(logits) if photographs is None else photographs
    classes = logits.shape[-1]
    wanted_logit = logits[np.arange(len(logits)), labels].mean()
    if classes > 1:
        others_logit = (classes * logits.mean() - wanted_logit) / (classes - 1)
        wanted_logit += (others_logit - wanted_logit) / (count + 2)
    low, high = 1.0 / FLATTEST, 1.0 / SHARPEST
    for _ in range(40):
        middle = np.sqrt(low * high)
        expected = (softmax(logits * middle) * logits).sum(axis=-1).mean()
        low, high = (middle, high) if expected < wanted_logit else (low, middle)
    return float(1.0 / np.sqrt(low * high))


def fit_temperatures(
    logits: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64] | None = None
) -> list[float]:
    """One temperature for each exit of logits (K, N, classes); 1 where another does not help on held-out images.

    `groups` (N,) are the numbers of the photographs behind the images, whose views are held out together.
    """
    groups = np.arange(logits.shape[1]) if groups is None else np.asarray(groups)
    photographs = len(np.unique(groups))
    return [fit_temperature(one, labels, photographs) if _helps(one, labels, groups) else 1.0 for one in logits]


def _helps(logits: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64]) -> bool:
    """Whether temperatures lower the calibration error of images (N, classes) that they were not fitted on."""
    folds = groups % _FOLDS
    if len(np.unique(folds)) < _FOLDS:
        return True  # too few images to hold some out
    scaled = np.array(logits, dtype=np.float64)
    for fold in range(_FOLDS):
        out = folds == fold
        scaled[out] /= fit_temperature(logits[~out], labels[~out], len(np.unique(groups[~out])))
    right = logits.argmax(axis=-1) == labels
    before, after = (
        calibration_error(reliability_bins(softmax(values).max(axis=-1), right)) for values in (logits, scaled)
    )
    return after < before


def reliability_bins(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS
) -> list[ReliabilityBin]:
    """Images (N,) sorted by confidence in at most B bins of equal mass.

    Raises: CalibrationError if there is no image.
    """
    if len(confidence) == 0:
        raise CalibrationError("an exit without images has no calibration error: give it some")
    order = np.argsort(confidence, kind="stable")
    return [
        ReliabilityBin(float(confidence[part].mean()), float(right[part].mean()), len(part))
        for part in np.array_split(order, min(bins, len(order)))
    ]


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over bins, weighted by images."""
    images = sum(one.count for one in bins)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / images


def exit_reliability(
    logits: NDArray[np.float64], labels: NDArray[np.int64], temperatures: Sequence[float], blocks: Sequence[int]
) -> list[ExitReliability]:
    """Calibration error and reliability bins of every exit of logits (K, N, classes), before and after."""
    rows = []
    for one, temperature, block in zip(logits, temperatures, blocks, strict=True):
        right = one.argmax(axis=-1) == labels
        before, after = (reliability_bins(softmax(scaled).max(axis=-1), right) for scaled in (one, one / temperature))
        rows.append(
            ExitReliability(
                block_index=int(block),
                temperature=float(temperature),
                error_before=calibration_error(before),
                error_after=calibration_error(after),
                bins_before=before,
                bins_after=after,
            )
        )
    return rows

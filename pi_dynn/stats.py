"""The statistics of a measurement: median, percentile, standard deviation and bootstrap intervals.

A few trials are not a normal sample, so the centre is a median and intervals are bootstrapped.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from pi_dynn.errors import InputError

# By hand, here and in calibrate/bounds.py and calibrate/drift.py: scipy's wheel for a Pi has 33 MB, too much for a
# handful of functions.


def _values(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise InputError(f"statistics need one or more finite numbers in a row, got {values!r}: check the trials")
    return array


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones.

    Raises: InputError if there is no value or one is not finite.

    >>> median([3.0, 1.0, 2.0])
    2.0
    >>> median([1.0, 2.0, 3.0, 10.0])
    2.5
    """
    return float(np.median(_values(values)))


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` % of the values lie, linear between neighbours.

    Raises: InputError if there is no value, one is not finite, or `percent` is outside 0 to 100.

    >>> percentile([1.0, 2.0, 3.0, 4.0, 5.0], 95)
    4.8
    """
    if not 0 <= percent <= 100:
        raise InputError(f"a percentile lies between 0 and 100, got {percent!r}: give 95 for p95")
    return float(np.percentile(_values(values), percent))


def standard_deviation(values: Sequence[float]) -> float:
    """The sample standard deviation (denominator n - 1); 0.0 for a single value.

    >>> standard_deviation([1.0, 3.0])
    1.4142135623730951
    >>> standard_deviation([7.0])
    0.0
    """
    array = _values(values)
    return float(array.std(ddof=1)) if array.size > 1 else 0.0


def bootstrap_interval(
    values: Sequence[float],
    *,
    statistic: Callable[..., np.ndarray] = np.median,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval [low, high] of `statistic` over trials.

    The same values and seed give the same interval, so that a replayed run prints the same figures.
    `statistic` takes an array and an `axis`. With a handful of trials the interval of the median can
    be no wider than the trials themselves: run more of them if it matters.

    Raises: InputError if there is no value, or `confidence` is not inside (0, 1).
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.

    >>> bootstrap_interval([5.0, 5.0, 5.0])
    (5.0, 5.0)
    >>> low, high = bootstrap_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> low, high
    (1.0, 5.0)
    """
    if not 0.0 < confidence < 1.0:
        raise InputError(f"a confidence lies between 0 and 1, got {confidence!r}: give 0.95 for 95 %")
    array = _values(values)
    picks = np.random.default_rng(seed).integers(0, array.size, size=(resamples, array.size))
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(statistic(array[picks], axis=1), [tail, 100.0 - tail])
    return float(low), float(high)


def bootstrap_ratio_interval(
    above: Sequence[float], below: Sequence[float], *, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of median(above) / median(below), trials paired and drawn together.

    A load that slows both trials of a pair changes both medians, but hardly their ratio.

    Raises: InputError if there is no value, or the two are not equally many.

    >>> bootstrap_ratio_interval([4.0, 6.0, 8.0], [2.0, 3.0, 4.0])
    (2.0, 2.0)
    """
    a, b = _values(above), _values(below)
    if a.size != b.size:
        raise InputError(f"a paired ratio needs equally many values, got {a.size} and {b.size}: pair the trials")
    picks = np.random.default_rng(seed).integers(0, a.size, size=(resamples, a.size))
    tail = 50.0 * (1.0 - confidence)
    ratios = np.median(a[picks], axis=1) / np.median(b[picks], axis=1)
    low, high = np.percentile(ratios, [tail, 100.0 - tail])
    return float(low), float(high)


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The interval [low, high] of a share that was seen `successes` times in `trials`; z of 1.96 is 95 %.

    Raises: InputError if there is no trial, or there are more successes than trials.
    Source: Wilson (1927), Journal of the American Statistical Association 22.

    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    if not 0 <= successes <= trials or trials < 1:
        raise InputError(f"{successes} of {trials} is no share: give 0 <= successes <= trials, and a trial")
    share, weight = successes / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    spread = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(0.0, middle - spread), min(1.0, middle + spread)

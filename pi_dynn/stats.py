"""The statistics of a measurement: median, percentile, standard deviation and confidence intervals.

Of many answers the centre is a median with a bootstrap interval. Of a few independent trials it is the mean with
Student's t: the bootstrap of five values covers the true one in 78 runs of 100 instead of 95.
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


# Quantiles at 0.975 for 1 to 30 degrees of freedom, then for 40, 60 and 120.
# Source: NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.2.
_T95 = (
    (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    + (2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)
    + (2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)
)
_T95_ABOVE = ((120, 1.980), (60, 2.000), (40, 2.021))
LEAST_TRIALS = 3
"""Fewer trials give no interval: with two the factor is 12.7, and a single one has no spread."""


def student_t95(freedom: float) -> float:
    """The factor of a two-sided 95 % interval with `freedom` degrees of freedom, rounded down to a tabulated number.

    Raises: InputError below one degree of freedom.
    Source: BIPM, Guide to the Expression of Uncertainty in Measurement (2008), G.4.1, for the rounding.

    >>> student_t95(4), student_t95(4.9), student_t95(1000)
    (2.776, 2.776, 1.98)
    """
    if not freedom >= 1:
        raise InputError(f"an interval needs one degree of freedom or more, got {freedom!r}: run more trials")
    above = (factor for least, factor in _T95_ABOVE if freedom >= least)
    return next(above, _T95[min(int(freedom), len(_T95)) - 1])


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % confidence interval [low, high] of the mean of independent values; None for fewer than three.

    Raises: InputError if there is no value or one is not finite.

    >>> low, high = mean_interval([4.0, 5.0, 6.0])
    >>> round(low, 3), round(high, 3)
    (2.516, 7.484)
    >>> mean_interval([4.0, 5.0]) is None
    True
    """
    array = _values(values)
    if array.size < LEAST_TRIALS:
        return None
    half = student_t95(array.size - 1) * standard_error(values)
    return float(array.mean()) - half, float(array.mean()) + half


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean of independent values; 0.0 for a single one.

    >>> standard_error([1.0, 3.0])
    1.0
    """
    return standard_deviation(values) / math.sqrt(len(values))


def independent_difference_interval(
    first: float, first_error: float, first_count: int, second: float, second_error: float, second_count: int
) -> tuple[float, float]:
    """The 95 % interval [low, high] of `second` less `first`: means of independent values with their standard errors.

    Raises: InputError if either mean is of fewer than three values.
    Source: Welch (1947), The generalization of Student's problem, Biometrika 34.

    >>> low, high = independent_difference_interval(5.0, 0.3, 5, 7.0, 0.4, 5)
    >>> round(low, 3), round(high, 3)
    (0.817, 3.183)
    """
    if min(first_count, second_count) < LEAST_TRIALS:
        raise InputError(f"{min(first_count, second_count)} trials give no interval: run {LEAST_TRIALS} or more")
    error = math.hypot(first_error, second_error)
    parts = first_error**4 / (first_count - 1) + second_error**4 / (second_count - 1)
    half = student_t95(error**4 / parts) * error if parts > 0 else 0.0
    return second - first - half, second - first + half


def mean_ratio_interval(above: Sequence[float], below: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of mean(above) / mean(below), trials paired; None for fewer than three pairs.

    Raises: InputError if there is no value, the two are not equally many, or mean(below) is not positive.
    Source: Cochran, Sampling Techniques (1977), section 6.3 (the variance of a ratio estimator).

    >>> low, high = mean_ratio_interval([2.0, 3.1, 3.9], [4.0, 6.0, 8.0])
    >>> round(low, 3), round(high, 3)
    (0.459, 0.541)
    """
    a, b = _values(above), _values(below)
    if a.size != b.size or not b.mean() > 0:
        raise InputError(f"a paired ratio needs pairs and a positive mean below, got {above!r} and {below!r}")
    ratio = float(a.mean() / b.mean())
    spread = mean_interval(((a - ratio * b) / b.mean()).tolist())
    return None if spread is None else (ratio + spread[0], ratio + spread[1])


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

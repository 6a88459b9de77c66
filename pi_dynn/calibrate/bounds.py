"""Hypothesis tests and confidence bounds for the accuracy lost by early exits: exact, or by the normal limit.

Of n images, `harms` are those that full depth has right and the exits wrong, `helps` the other way round.
Counts may be arrays; results then have the same shape.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

HARM, GAP = "harm", "gap"
_BETS = 64  # stakes mixed in the test of a gap
_BISECTIONS = 60
_MOST_IMAGES = 2**24  # more than any calibration set has


def binomial_tail(count: ArrayLike, n: int, share: float) -> NDArray[np.float64]:
    """Probability that at most `count` of n independent images are harmed, if a `share` of all are.

    >>> float(binomial_tail(0, 10, 0.1).round(4)), float(binomial_tail(10, 10, 0.1).round(4))
    (0.3487, 1.0)
    """
    counts = np.asarray(count, dtype=np.int64)
    if share <= 0.0 or share >= 1.0:
        return np.where((share <= 0.0) | (counts >= n), 1.0, 0.0)
    j = np.arange(1, int(counts.max(initial=0)) + 1)
    # log of the ratio of neighbouring probabilities, so that no binomial coefficient overflows
    steps = np.log(np.maximum(n - j + 1, 1e-300) / j) + math.log(share) - math.log1p(-share)
    logs = np.concatenate(([n * math.log1p(-share)], n * math.log1p(-share) + np.cumsum(steps)))
    tail: NDArray[np.float64] = np.minimum(np.cumsum(np.exp(logs))[counts], 1.0)
    return tail


def harm_p_value(harms: ArrayLike, n: int, epsilon: float, corrected: bool = True) -> NDArray[np.float64]:
    """The p-value of `harms` under a harmed share of epsilon: the exact binomial test.

    Without the correction it is the score test, which relies on the normal limit.

    Source: Angelopoulos et al., Learn then Test (2021), section 2.3, with the exact tail for 0/1 losses.
    """
    if corrected:
        return binomial_tail(harms, n, epsilon)
    deviation = math.sqrt(epsilon * (1.0 - epsilon) / n)
    return normal_tail((epsilon - np.asarray(harms) / n) / deviation)


def gap_p_value(
    harms: ArrayLike, helps: ArrayLike, n: int, epsilon: float, corrected: bool = True
) -> NDArray[np.float64]:
    """The p-value of the observed gap under a true gap (accuracy of full depth less that of the exits) of epsilon.

    A bet of stake b on each image multiplies the wealth by 1 + b (epsilon - loss), loss being 1 for a harm, -1
    for a help and 0 else. If the gap is epsilon or more, wealth does not grow on average, nor does the mean
    over stakes; by Markov's inequality its inverse is a valid p-value. Without the correction: the score test.

    Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (2023), section 4.
    """
    harms, helps = np.asarray(harms, dtype=np.float64), np.asarray(helps, dtype=np.float64)
    if not corrected:
        spread = np.maximum((harms + helps) / n, epsilon) - epsilon**2
        return normal_tail((epsilon - (harms - helps) / n) / np.sqrt(spread / n))
    stakes = np.geomspace(1e-3, 0.999, _BETS).reshape(-1, *[1] * harms.ndim) / (1.0 - epsilon)
    wealth = (
        harms * np.log1p(stakes * (epsilon - 1.0))
        + helps * np.log1p(stakes * (epsilon + 1.0))
        + (n - harms - helps) * np.log1p(stakes * epsilon)
    )
    top = wealth.max(axis=0)
    p_values: NDArray[np.float64] = np.minimum(np.exp(-top) / np.exp(wealth - top).mean(axis=0), 1.0)
    return p_values


def normal_tail(deviations: ArrayLike) -> NDArray[np.float64]:
    """Probability that a standard normal number exceeds each of `deviations`."""
    tails: NDArray[np.float64] = np.vectorize(lambda z: 0.5 * math.erfc(z / math.sqrt(2.0)), otypes=[float])(deviations)
    return tails


def p_value(
    risk: str, harms: ArrayLike, helps: ArrayLike, n: int, epsilon: float, corrected: bool = True
) -> NDArray[np.float64]:
    """The p-value of the risk named "harm" or "gap"."""
    if risk == HARM:
        return harm_p_value(harms, n, epsilon, corrected)
    return gap_p_value(harms, helps, n, epsilon, corrected)


def upper_bound(risk: str, harms: int, helps: int, n: int, delta: float, corrected: bool = True) -> float:
    """The upper confidence bound of the loss (a share) at level delta; 1 if there is none below.

    For harms with the correction it is the Clopper-Pearson bound.
    """
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        refuted = p_value(risk, harms, helps, n, middle, corrected) <= delta
        low, high = (low, middle) if refuted else (middle, high)
    return high


def images_needed(
    risk: str, harm_share: float, help_share: float, epsilon: float, delta: float, corrected: bool = True
) -> int | None:
    """The least n at which counts of these shares would show a loss of at most epsilon; None if there is none."""

    def shown(n: int) -> bool:
        harms, helps = math.ceil(harm_share * n), math.floor(help_share * n)
        return bool(p_value(risk, harms, helps, n, epsilon, corrected) <= delta)

    if harm_share - (0.0 if risk == HARM else help_share) >= epsilon:
        return None
    n = 1
    while not shown(n):
        n *= 2
        if n > _MOST_IMAGES:
            return None
    low = n // 2
    while n - low > 1:
        middle = (low + n) // 2
        low, n = (low, middle) if shown(middle) else (middle, n)
    return n

"""Drift detection: a chi-square test of exit shares in a sliding window against those at calibration.

Shape letters: K exits including the last answer.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pi_dynn.calibrate.bounds import binomial_tail

WINDOW = 200
_STEPS = 4  # tests per window: fewer detect drift late, more are strongly correlated
_LEAST_EXPECTED = 5.0  # images per cell below which the chi-square approximation is poor (Cochran, 1954)
ALPHA = 1e-3  # probability of a false alarm per test


@dataclass(frozen=True)
class Drift:
    """Exit shares (K) of the window and of the record, and the p-value of their difference."""

    images: int
    shares: list[float]
    expected: list[float]
    p_value: float


def chi_square_tail(statistic: float, freedom: int) -> float:
    """Probability that a chi-square variable of `freedom` degrees exceeds `statistic`.

    >>> round(chi_square_tail(3.841, 1), 3), round(chi_square_tail(5.991, 2), 3), round(chi_square_tail(7.815, 3), 3)
    (0.05, 0.05, 0.05)
    """
    half = statistic / 2.0
    odd = freedom % 2
    tail = math.erfc(math.sqrt(half)) if odd else math.exp(-half)
    shape = 0.5 if odd else 1.0
    while shape < freedom / 2.0:
        tail += math.exp(shape * math.log(half) - half - math.lgamma(shape + 1.0)) if half > 0 else 0.0
        shape += 1.0
    return min(tail, 1.0)


def compare_shares(counts: Sequence[int], expected: Sequence[float]) -> float:
    """The p-value of counts (K) at each exit under the shares `expected` (K).

    Exits with too few expected images are pooled, and where these are too few as well, tested exactly: the smaller of
    the two p-values then counts twice.
    """
    images, expected_images = np.asarray(counts, dtype=np.float64), np.asarray(expected) * np.sum(counts)
    rare = expected_images < _LEAST_EXPECTED
    pooled, share = int(images[rare].sum()), float(np.asarray(expected)[rare].sum())
    common, expected_common = images[~rare], expected_images[~rare]
    if share * images.sum() >= _LEAST_EXPECTED:
        return _chi_square(np.append(common, pooled), np.append(expected_common, expected_images[rare].sum()))
    if not pooled and not share:
        return _chi_square(common, expected_common)
    # Of images that leave where none did before one is enough.
    exact = 1.0 - float(binomial_tail(pooled - 1, int(images.sum()), share)) if pooled else 1.0
    return min(1.0, 2.0 * min(exact, _chi_square(common, expected_common)))


def _chi_square(images: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """The p-value of counts under expected counts, which are scaled to as many images."""
    if len(images) < 2 or not images.sum():
        return 1.0
    expected = expected * (images.sum() / expected.sum())
    return chi_square_tail(float(((images - expected) ** 2 / expected).sum()), len(images) - 1)


class DriftWatch:
    """Tests the exits of the last images a few times per window, and reports once when they drift."""

    def __init__(self, expected: Sequence[float], window: int = WINDOW, alpha: float = ALPHA) -> None:
        self._window, self._alpha = window, alpha
        self.expect(expected)

    def expect(self, expected: Sequence[float]) -> None:
        """Restart with other expected shares (K), for other thresholds."""
        self._expected = [float(share) for share in expected]
        self._recent: deque[int] = deque(maxlen=self._window)
        self._images, self._drifted = 0, False

    def add(self, exit_index: int) -> Drift | None:
        """Count one answer; returns the drift when the window begins to differ from the expected shares."""
        self._recent.append(exit_index)
        self._images += 1
        if len(self._recent) < self._window or self._images % max(1, self._window // _STEPS):
            return None
        counts = np.bincount(list(self._recent), minlength=len(self._expected))
        p_value = compare_shares(counts.tolist(), self._expected)
        known, self._drifted = self._drifted, p_value < self._alpha
        if known or not self._drifted:
            return None
        return Drift(self._window, (counts / self._window).tolist(), self._expected, p_value)

"""Whether images still leave where they did when the thresholds were chosen: chi-square over a sliding window.

Shape letters: K exits including the last answer.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 200
_STEPS = 4  # looks per window: fewer would notice late, more would only repeat themselves
_LEAST_EXPECTED = 5.0  # images per cell below which the chi-square limit is no longer good (Cochran, 1954)
ALPHA = 1e-3  # chance of a false alarm at one look


@dataclass(frozen=True)
class Drift:
    """Exit shares (K) of the window and of the record, and how likely so great a difference is by chance."""

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
    """The p-value of counts (K) at each exit, were the shares those `expected` (K).

    Exits of which too few images are expected are counted together.
    """
    images, wanted = np.asarray(counts, dtype=np.float64), np.asarray(expected) * np.sum(counts)
    rare = wanted < _LEAST_EXPECTED
    observed = np.append(images[~rare], images[rare].sum())
    wanted = np.append(wanted[~rare], wanted[rare].sum())
    if wanted[-1] == 0.0:
        if observed[-1] > 0:
            return 0.0  # images leave where none ever did
        observed, wanted = observed[:-1], wanted[:-1]
    if len(wanted) < 2:
        return 1.0
    return chi_square_tail(float(((observed - wanted) ** 2 / wanted).sum()), len(wanted) - 1)


class DriftWatch:
    """Looks at the exits of the last images, a few times per window, and reports once when they part."""

    def __init__(self, expected: Sequence[float], window: int = WINDOW, alpha: float = ALPHA) -> None:
        self._window, self._alpha = window, alpha
        self.expect(expected)

    def expect(self, expected: Sequence[float]) -> None:
        """Start over with other shares (K), since other thresholds are in use."""
        self._expected = [float(share) for share in expected]
        self._recent: deque[int] = deque(maxlen=self._window)
        self._seen, self._parted = 0, False

    def add(self, exit_index: int) -> Drift | None:
        """Take note of one answer; the drift, when the window parts from what is expected."""
        self._recent.append(exit_index)
        self._seen += 1
        if len(self._recent) < self._window or self._seen % max(1, self._window // _STEPS):
            return None
        counts = np.bincount(list(self._recent), minlength=len(self._expected))
        p_value = compare_shares(counts.tolist(), self._expected)
        parted, self._parted = self._parted, p_value < self._alpha
        if parted or not self._parted:
            return None
        return Drift(self._window, (counts / self._window).tolist(), self._expected, p_value)

"""Coordinate search: the best threshold of one exit given all others, exit by exit, until none changes.

Scores are quantised to levels once. Accuracy and cost at every level of one exit are then two histograms and two
cumulative sums over the images that reach it, so that a step is linear in the images, whatever the number of levels.

Shape letters: K exits including the last answer, N samples, L levels of an exit.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pi_dynn.calibrate.outcomes import ExitOutcomes, between
from pi_dynn.records import NEVER

Choose = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""The objective: from right answers (L + 1,) and costs (L + 1,) over all images, the value to be maximised."""

MOST_LEVELS = 1000
MOST_ROUNDS = 5
LEAST_NEIGHBOURS = 30
_NEIGHBOURS_POWER = 0.75  # of the images that reach an exit: 250 have 63 neighbours, 100,000 have 5,600


class CoordinateSearch:
    """Levels of the scores of `outcomes`, and the search over them.

    A threshold is a level index: images whose score is in that level or above leave; at L no image does.

    With `smoothing`, the gain of an image by leaving is the mean over its neighbours in score. With a few hundred
    images the position of the best threshold is mostly noise, which the mean reduces; without it the search is
    exact on these images and overfits.
    """

    def __init__(self, outcomes: ExitOutcomes, smoothing: bool = True) -> None:
        self.outcomes, self._smoothing = outcomes, smoothing
        self._cuts = [_cuts(scores) for scores in outcomes.scores[:-1]]
        self._level = [
            np.searchsorted(cuts, scores, side="right") - 1
            for cuts, scores in zip(self._cuts, outcomes.scores[:-1], strict=True)
        ]
        self._right = outcomes.right.astype(np.float64)

    @property
    def full_depth(self) -> list[int]:
        """The levels at which no image leaves early."""
        return [len(cuts) for cuts in self._cuts]

    def thresholds(self, levels: Sequence[int]) -> list[float]:
        """Levels as thresholds: a cut lies midway between two scores; at the lowest level all images leave."""
        return [
            NEVER if level == len(cuts) else float(cuts[level]) for level, cuts in zip(levels, self._cuts, strict=True)
        ]

    def levels(self, thresholds: Sequence[float]) -> list[int]:
        """The lowest levels at which no more images leave than with `thresholds`."""
        return [
            int(np.searchsorted(cuts, limit, side="left")) for cuts, limit in zip(self._cuts, thresholds, strict=True)
        ]

    def improve(self, levels: Sequence[int], choose: Choose) -> list[int]:
        """Levels after moving each exit in turn, the last first, to the maximum of `choose`."""
        best = list(levels)
        for _ in range(MOST_ROUNDS):
            before = list(best)
            self._round(best, choose)
            if best == before:
                break
        return best

    def _round(self, levels: list[int], choose: Choose) -> None:
        """Move each level in place, last exit first: the images that reach an exit depend only on exits before it."""
        costs, right = self.outcomes.costs, self._right
        reached, gone_right, gone_cost = self._arrivals(levels)
        later_right, later_cost = right[-1].copy(), np.full(self.outcomes.images, costs[-1])
        for k in reversed(range(len(levels))):
            level, here = self._level[k], reached[k]
            mass = np.bincount(level[here], minlength=len(self._cuts[k]) + 1)
            hits = later_right[here].sum() + self._gains(level[here], right[k][here] - later_right[here], mass)
            spent = later_cost[here].sum() + self._gains(level[here], costs[k] - later_cost[here], mass)
            hits, spent = hits + gone_right[k], spent + gone_cost[k]
            levels[k] = _middle_of_best(choose(hits, spent))
            leaves = level >= levels[k]
            later_right[leaves] = right[k][leaves]
            later_cost[leaves] = costs[k]

    def _gains(
        self, level: NDArray[np.int64], gain: NDArray[np.float64], mass: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The total gain (L + 1,) if the images at or above each level leave.

        `gain` and `level` are per image, `mass` (L + 1,) counts the images of each level.
        """
        by_level = np.asarray(np.bincount(level, weights=gain, minlength=len(mass)), dtype=np.float64)
        if self._smoothing:
            by_level = neighbourhood_mean(by_level, mass) * mass
        return np.cumsum(by_level[::-1])[::-1]

    def _arrivals(self, levels: list[int]) -> tuple[list[NDArray[np.int64]], list[float], list[float]]:
        """The images that reach each exit (indices), and right answers and cost of those that left before it."""
        remaining = np.arange(self.outcomes.images)
        reached, gone_right, gone_cost = [], [0.0], [0.0]
        for k, level in enumerate(levels):
            reached.append(remaining)
            leaves = self._level[k][remaining] >= level
            gone_right.append(gone_right[-1] + self._right[k][remaining[leaves]].sum())
            gone_cost.append(gone_cost[-1] + self.outcomes.costs[k] * leaves.sum())
            remaining = remaining[~leaves]
        return reached, gone_right, gone_cost


def _cuts(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most MOST_LEVELS rising cuts between scores; the first is 0 or less, so that every image is at or above it."""
    values = np.unique(scores)
    if len(values) > MOST_LEVELS:
        values = np.unique(np.quantile(scores, np.linspace(0.0, 1.0, MOST_LEVELS + 1)[:-1], method="nearest"))
    return np.concatenate(([min(0.0, values[0])], between(values[:-1], values[1:])))


def neighbourhood_mean(total: NDArray[np.float64], mass: NDArray[np.int64]) -> NDArray[np.float64]:
    """The moving average per image around each level; at either end over the images on one side.

    `total` and `mass` (L + 1,) are the sum over the images of a level, and how many they are.
    """
    images = mass.sum()
    half = max(LEAST_NEIGHBOURS, images**_NEIGHBOURS_POWER) / 2
    edges, totals = np.concatenate(([0], np.cumsum(mass))), np.concatenate(([0.0], np.cumsum(total)))
    middle = (edges[1:] + edges[:-1]) / 2
    low, high = np.maximum(middle - half, 0.0), np.minimum(middle + half, images)
    whole = np.interp(high, edges, totals) - np.interp(low, edges, totals)
    mean: NDArray[np.float64] = whole / np.maximum(high - low, 1.0)
    return mean


def _middle_of_best(value: NDArray[np.float64]) -> int:
    """The index of the maximum of `value`; the middle of a plateau, or the top level if the plateau reaches it."""
    ties = np.flatnonzero(value == value.max())
    if ties[-1] == len(value) - 1:
        return int(ties[-1])
    start = len(ties) - 1
    while start > 0 and ties[start - 1] == ties[start] - 1:
        start -= 1
    return int(ties[(start + len(ties) - 1) // 2])

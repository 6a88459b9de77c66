"""Coordinate search: the best threshold of one exit given those of all others, exit by exit until none moves.

Scores are sorted into levels once. What each level of one exit would give is then two histograms and two
running sums over those who reach it, so that a step is linear in the images, whatever the number of levels.

Shape letters: K exits including the last answer, N samples, L levels of an exit.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pi_dynn.calibrate.outcomes import ExitOutcomes, between
from pi_dynn.records import NEVER

Choose = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""From right answers (L + 1,) and costs (L + 1,) over all images, at each level, to a value to be greatest."""

MOST_LEVELS = 1000
MOST_ROUNDS = 5
LEAST_NEIGHBOURS = 30
_NEIGHBOURS_POWER = 0.75  # of the images that reach an exit: 250 have 63 neighbours, 100,000 have 5,600


class CoordinateSearch:
    """Levels of the scores of `outcomes`, and the search over them.

    A threshold is a level index: images whose score is in that level or above leave; L means that nobody does.

    With `smoothing`, what an image gains by leaving is the mean over its neighbours in score. Where the best
    threshold lies on a few hundred images is mostly chance, and the mean takes most of that away; without it
    the search is exact on these images and worse on others.
    """

    def __init__(self, outcomes: ExitOutcomes, smoothing: bool = True, most_levels: int = MOST_LEVELS) -> None:
        self.outcomes, self._smoothing = outcomes, smoothing
        self._cuts = [_cuts(scores, most_levels) for scores in outcomes.scores[:-1]]
        self._level = [
            np.searchsorted(cuts, scores, side="right") - 1
            for cuts, scores in zip(self._cuts, outcomes.scores[:-1], strict=True)
        ]
        self._right = outcomes.right.astype(np.float64)

    @property
    def closed(self) -> list[int]:
        """The levels with which nobody leaves early."""
        return [len(cuts) for cuts in self._cuts]

    def thresholds(self, levels: Sequence[int]) -> list[float]:
        """Levels as thresholds: a cut lies midway between two scores, and the lowest lets everybody leave."""
        return [
            NEVER if level == len(cuts) else float(cuts[level]) for level, cuts in zip(levels, self._cuts, strict=True)
        ]

    def levels(self, thresholds: Sequence[float]) -> list[int]:
        """The levels nearest to thresholds, such that no more images leave than with these."""
        return [
            int(np.searchsorted(cuts, limit, side="left")) for cuts, limit in zip(self._cuts, thresholds, strict=True)
        ]

    def improve(self, levels: Sequence[int], choose: Choose) -> list[int]:
        """Levels after moving one exit after the other, the last first, to where `choose` is greatest."""
        best = list(levels)
        for _ in range(MOST_ROUNDS):
            before = list(best)
            self._round(best, choose)
            if best == before:
                break
        return best

    def _round(self, levels: list[int], choose: Choose) -> None:
        """Move each level in place. Those who reach an exit depend on exits before it, which move after it."""
        costs, right = self.outcomes.costs, self._right
        reached, gone_right, gone_cost = self._arrivals(levels)
        later_right, later_cost = right[-1].copy(), np.full(self.outcomes.images, costs[-1])
        for k in reversed(range(len(levels))):
            level, there = self._level[k], reached[k]
            mass = np.bincount(level[there], minlength=len(self._cuts[k]) + 1)
            hits = later_right[there].sum() + self._gains(level[there], right[k][there] - later_right[there], mass)
            spent = later_cost[there].sum() + self._gains(level[there], costs[k] - later_cost[there], mass)
            hits, spent = hits + gone_right[k], spent + gone_cost[k]
            levels[k] = _middle_of_best(choose(hits, spent))
            leaves = level >= levels[k]
            later_right[leaves] = right[k][leaves]
            later_cost[leaves] = costs[k]

    def _gains(
        self, level: NDArray[np.int64], gain: NDArray[np.float64], mass: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """What all who leave gain together, (L + 1,), if those at or above each level leave.

        `gain` and `level` are per image, `mass` (L + 1,) counts the images of each level.
        """
        by_level = np.asarray(np.bincount(level, weights=gain, minlength=len(mass)), dtype=np.float64)
        if self._smoothing:
            by_level = neighbourhood_mean(by_level, mass) * mass
        return np.cumsum(by_level[::-1])[::-1]

    def _arrivals(self, levels: list[int]) -> tuple[list[NDArray[np.int64]], list[float], list[float]]:
        """Who reaches each exit (indices), and right answers and cost of those gone before it."""
        there = np.arange(self.outcomes.images)
        reached, gone_right, gone_cost = [], [0.0], [0.0]
        for k, level in enumerate(levels):
            reached.append(there)
            leaves = self._level[k][there] >= level
            gone_right.append(gone_right[-1] + self._right[k][there[leaves]].sum())
            gone_cost.append(gone_cost[-1] + self.outcomes.costs[k] * leaves.sum())
            there = there[~leaves]
        return reached, gone_right, gone_cost


def _cuts(scores: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """At most `most` rising cuts between scores; the first is 0, so that everybody is at or above it."""
    values = np.unique(scores)
    if len(values) > most:
        values = np.unique(np.quantile(scores, np.linspace(0.0, 1.0, most + 1)[:-1], method="nearest"))
    return np.concatenate(([min(0.0, values[0])], between(values[:-1], values[1:])))


def neighbourhood_mean(total: NDArray[np.float64], mass: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean per image over those around each level; at either end over those on one side.

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
    """Where `value` is greatest; of a plateau the middle, and the top level if it belongs to the plateau."""
    ties = np.flatnonzero(value == value.max())
    if ties[-1] == len(value) - 1:
        return int(ties[-1])
    start = len(ties) - 1
    while start > 0 and ties[start - 1] == ties[start] - 1:
        start -= 1
    return int(ties[(start + len(ties) - 1) // 2])

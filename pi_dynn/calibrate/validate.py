"""Cross-validation of the ways to choose thresholds, with the one-standard-error rule.

At each price of cost, ways from simple to free choose on some images and are evaluated on others. A freer way is
taken only if its gain over the simpler one exceeds one standard error of that gain.

Source: Breiman et al., Classification and Regression Trees (1984), section 3.4.3, the one-standard-error rule.
Shape letters: K exits including the last answer, N samples, P prices, W ways, G photographs.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pi_dynn.calibrate.outcomes import ExitOutcomes, Values, leave_at

Way = Callable[[ExitOutcomes, Values], Sequence[Values] | NDArray[np.float64]]
"""From images and prices (P,) to the thresholds (P, K - 1) that suit each price."""

FOLDS = 5
_MANY = 4000  # photographs from which on two folds are enough


def folds(
    groups: NDArray[np.int64], count: int, seed: int = 0
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Masks (N,) of the training and validation images of each fold; views of one photograph stay together."""
    names, place = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names)) % count
    for number in range(count):
        held = fold[place] == number
        yield ~held, held


def values_at_prices(
    outcomes: ExitOutcomes, thresholds: Sequence[Values] | NDArray[np.float64], prices: Values
) -> NDArray[np.float64]:
    """The value of each image at each price, (P, N): 1 if the answer is right, less price times share of full cost."""
    rows = []
    samples, full = np.arange(outcomes.images), outcomes.costs[-1]
    for limits, price in zip(thresholds, prices, strict=True):
        exits = leave_at(outcomes.scores, limits)
        rows.append(outcomes.right[exits, samples] - price * outcomes.costs[exits] / full)
    return np.stack(rows)


def held_out_values(outcomes: ExitOutcomes, ways: Sequence[Way], prices: Values) -> NDArray[np.float64]:
    """The mean value of each photograph with thresholds chosen without it, (W, P, G)."""
    count = min(FOLDS if outcomes.photographs < _MANY else 2, outcomes.photographs)
    worth = np.zeros((len(ways), len(prices), outcomes.images))
    for training, validation in folds(outcomes.group_of, count):
        fitting, held_out = outcomes.subset(training), outcomes.subset(validation)
        for number, way in enumerate(ways):
            worth[number][:, validation] = values_at_prices(held_out, way(fitting, prices), prices)
    return means_of_photographs(outcomes, worth)


def tightening(
    outcomes: ExitOutcomes, chosen_by: Callable[[ExitOutcomes], Sequence[float]], shares: Sequence[float], most: float
) -> float:
    """How much stricter thresholds have to be for images that they were not chosen by.

    The first of `shares` with which thresholds t, made 1 - share x (1 - t), cost at most `most` of their accuracy; the
    last if none does.
    """
    lost = np.zeros((len(shares), outcomes.images))
    for training, validation in folds(outcomes.group_of, min(FOLDS, outcomes.photographs)):
        chosen, held_out = np.asarray(chosen_by(outcomes.subset(training))), outcomes.subset(validation)
        samples = np.arange(held_out.images)
        for row, share in zip(lost, shares, strict=True):
            exits = leave_at(held_out.scores, tightened(chosen, share))
            row[validation] = held_out.right[-1].astype(float) - held_out.right[exits, samples]
    return next((share for share, row in zip(shares, lost, strict=True) if row.mean() <= most), shares[-1])


def tightened(thresholds: Sequence[float] | NDArray[np.float64], share: float) -> list[float]:
    """Thresholds with this share of the distance to 1 that the given ones have."""
    return [float(value) for value in 1.0 - share * (1.0 - np.asarray(thresholds))]


def means_of_photographs(outcomes: ExitOutcomes, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of values (..., N) over the views of each photograph, (..., G)."""
    _, place, views = np.unique(outcomes.group_of, return_inverse=True, return_counts=True)
    sums = np.apply_along_axis(lambda row: np.bincount(place, weights=row), -1, values)
    means: NDArray[np.float64] = sums / views
    return means


def simplest_ways(worth: NDArray[np.float64], errors: float = 1.0) -> list[int]:
    """The number of the way to take at each price, from values of photographs (W, P, G); 0 is the simplest.

    A freer way has to gain more than so many standard errors.
    """
    chosen = []
    for at_price in worth.swapaxes(0, 1):  # (W, G)
        best = 0
        for way in range(1, len(at_price)):
            gain = at_price[way] - at_price[best]
            error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
            if gain.mean() > errors * error:
                best = way
        chosen.append(best)
    return chosen

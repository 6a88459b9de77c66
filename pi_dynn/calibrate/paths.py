"""Paths of thresholds from cheap to dear: one common threshold, plus a constant shift per exit.

Shifts are on the logit scale, where scores of good networks are spread evenly; without shifts the path is that of
the common thresholds. All steps of a path are counted at once: an image that stays at one step of the path stays at
every later one.

Shape letters: K exits including the last answer, N samples, T steps of the path.
"""

import numpy as np
from numpy.typing import NDArray

from pi_dynn.calibrate.outcomes import ExitOutcomes, Values
from pi_dynn.records import NEVER

STEPS = np.linspace(-6.0, 12.0, 1801)
PRIOR_SD = 0.25  # of an exit's offset, in logits
SURE = 1e-6  # scores this close to 0 or 1 count as no closer


def logit(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores on the logit scale, between -13.8 and 13.8.

    >>> logit(np.array([0.5, 1.0])).round(1).tolist()
    [0.0, 13.8]
    """
    inside = np.clip(scores, SURE, 1.0 - SURE)
    logits: NDArray[np.float64] = np.log(inside) - np.log1p(-inside)
    return logits


def shifted_path(shifts: Values) -> NDArray[np.float64]:
    """Thresholds (T, K - 1), rising in every column from where all images leave to where none does; one shift per exit.

    An infinite shift disables its exit.
    """
    shifts = np.asarray(shifts, dtype=np.float64)
    inner = 1.0 / (1.0 + np.exp(-(STEPS[:, None] + shifts)))
    all_leave = np.where(np.isinf(shifts), NEVER, 0.0)
    inner[:, np.isinf(shifts)] = NEVER
    return np.vstack([all_leave, inner, np.full(len(shifts), NEVER)])


def path_totals(outcomes: ExitOutcomes, path: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right answers (T,) and cost (T,), each the mean over images, at every step of a path (T, K - 1)."""
    T, N = len(path), outcomes.images
    # The first step at which an image stays in the network after each exit; after the last exit none does.
    stays = np.stack(
        [np.searchsorted(path[:, k], scores, side="right") for k, scores in enumerate(outcomes.scores[:-1])]
    )
    stays = np.vstack([np.zeros(N, dtype=np.int64), np.maximum.accumulate(stays, axis=0), np.full(N, T)])
    right, cost = np.zeros(T + 1), np.zeros(T + 1)
    for k, price in enumerate(outcomes.costs):
        comes, goes_on = (np.bincount(stays[row], minlength=T + 1) for row in (k, k + 1))
        cost += price * (comes - goes_on)
        hit = outcomes.right[k]
        comes, goes_on = (np.bincount(stays[row, hit], minlength=T + 1) for row in (k, k + 1))
        right += comes - goes_on
    return np.cumsum(right)[:-1] / N, np.cumsum(cost)[:-1] / N


def best_at_prices(outcomes: ExitOutcomes, path: NDArray[np.float64], prices: Values) -> NDArray[np.float64]:
    """The thresholds (P, K - 1) of a path at which accuracy less price times the share of full cost is greatest."""
    accuracy, cost = path_totals(outcomes, path)
    share = cost / outcomes.costs[-1]
    return path[[int(np.argmax(accuracy - price * share)) for price in prices]]


def calibration_shifts(outcomes: ExitOutcomes) -> NDArray[np.float64]:
    """Shifts (K - 1,) that equalise the probability of harm over exits; zeros if scores do not predict harm.

    The probability that leaving harms (full depth is right, the exit is wrong) is fitted to the scores of all exits
    by one logistic regression with a common slope and an offset per exit, shrunk to zero by a Gaussian prior.

    Source: Platt, Probabilistic Outputs for Support Vector Machines (1999), partially pooled over exits as in
    Gelman and Hill, Data Analysis Using Regression and Multilevel Models (2007), chapter 12.
    """
    E = outcomes.early_exits
    harm = outcomes.right[-1] & ~outcomes.right[:-1]
    logits = logit(outcomes.scores[:-1])
    logits = logits - logits.mean()
    views = outcomes.images / outcomes.photographs  # all views of a photograph weigh no more than one
    ridge = np.diag([1e-3, 1e-3, *np.full(E, views / PRIOR_SD**2)])
    weights = np.zeros(2 + E)  # common offset, slope, offset of each exit
    for _ in range(25):
        probability = 1.0 / (1.0 + np.exp(-(weights[0] + weights[1] * logits + weights[2:, None])))
        residual, variance = harm - probability, probability * (1.0 - probability)
        gradient = np.concatenate(([residual.sum(), (residual * logits).sum()], residual.sum(axis=1)))
        per_exit, with_logit = variance.sum(axis=1), (variance * logits).sum(axis=1)
        hessian = np.zeros((2 + E, 2 + E))
        hessian[0, 0], hessian[0, 1], hessian[1, 1] = per_exit.sum(), with_logit.sum(), (variance * logits**2).sum()
        hessian[0, 2:], hessian[1, 2:] = per_exit, with_logit
        hessian = np.triu(hessian) + np.triu(hessian, 1).T
        hessian[2:, 2:] = np.diag(per_exit)
        step = np.linalg.solve(hessian + ridge, gradient - ridge @ weights)
        weights += np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-6:
            break
    if weights[1] >= -1e-3:
        return np.zeros(E)
    shifts: NDArray[np.float64] = np.clip(weights[2:] / -weights[1], -6.0, 6.0)
    return shifts

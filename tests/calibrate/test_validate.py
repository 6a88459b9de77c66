"""Folds keep views together, and a freer way needs a gain of more than one standard error."""

import numpy as np
import pytest

from pi_dynn.calibrate.outcomes import leave_at
from pi_dynn.calibrate.validate import folds, held_out_values, simplest_ways, tightened, tightening, values_at_prices
from tests.calibrate.synthetic import synthetic_outcomes


def test_folds_share_out_all_images_and_part_no_photograph():
    groups = np.repeat(np.arange(23), 3)
    held = [judging for choosing, judging in folds(groups, 5) if not (choosing & judging).any()]
    assert len(held) == 5 and (np.sum(held, axis=0) == 1).all()
    for judging in held:
        assert not np.intersect1d(groups[judging], groups[~judging]).size


def test_values_are_right_answers_less_what_they_cost():
    outcomes = synthetic_outcomes(50)
    values = values_at_prices(outcomes, [[0.8] * 4, [0.5] * 4], [0.0, 0.5])
    exits = leave_at(outcomes.scores, [0.5] * 4)
    assert values[0].sum() == outcomes.right[leave_at(outcomes.scores, [0.8] * 4), np.arange(50)].sum()
    assert values[1] == pytest.approx(outcomes.right[exits, np.arange(50)] - 0.5 * outcomes.costs[exits] / 100.0)


def test_thresholds_are_never_chosen_on_the_images_they_are_judged_on():
    outcomes, training_sets = synthetic_outcomes(40), []

    def spy(chosen_on, prices):
        training_sets.append(set(chosen_on.groups.tolist()))
        return [[0.9] * 4 for _ in prices]

    worth = held_out_values(outcomes, [spy], [0.1])
    assert worth.shape == (1, 1, 40) and len(training_sets) == 5
    assert all(sum(image not in part for part in training_sets) == 1 for image in range(40))
    assert worth[0] == pytest.approx(values_at_prices(outcomes, [[0.9] * 4], [0.1]))


def test_a_freer_way_must_gain_more_than_one_standard_error():
    rng = np.random.default_rng(0)
    base, noise = np.zeros(400), rng.standard_normal(400)
    noise -= noise.mean()
    at_prices = [(base, noise + 0.04, noise - 1.0), (base, noise + 0.06, noise + 0.06), (base, noise - 0.3, base + 0.1)]
    assert simplest_ways(np.array(at_prices).swapaxes(0, 1)) == [0, 1, 2]


def test_thresholds_are_tightened_until_images_they_were_not_chosen_by_lose_little():
    outcomes, shares = synthetic_outcomes(400), (1.0, 0.5, 0.1)

    def lost(share: float) -> float:
        exits = leave_at(outcomes.scores, tightened([0.5] * 4, share))
        return float(outcomes.right[-1].mean() - outcomes.right[exits, np.arange(400)].mean())

    losses = [lost(share) for share in shares]
    assert losses[0] > losses[1] > losses[2]
    for most, share in zip((losses[0], losses[1], -1.0), shares, strict=True):  # the last where none is enough
        assert tightening(outcomes, lambda _: [0.5] * 4, shares, most) == share
    assert tightened([0.5, 0.9], 0.1) == pytest.approx([0.95, 0.99])


def test_what_thresholds_are_tightened_by_was_not_looked_at_when_they_were_chosen():
    outcomes, chosen_by = synthetic_outcomes(40), []

    def spy(some):
        chosen_by.append(some.images)
        return [0.9] * 4

    tightening(outcomes, spy, (1.0,), 0.0)
    assert chosen_by == [32] * 5

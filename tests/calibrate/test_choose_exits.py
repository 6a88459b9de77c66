"""The cheapest exits that keep the accuracy."""

import numpy as np
import pytest

from pi_dynn.calibrate.choose_exits import choose_exits
from pi_dynn.errors import CalibrationError

MACS = [10, 21, 32, 40]  # every exit checked; each check costs 1
CHECKS = [1, 1, 1, 0]


def outputs(samples: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Exits that are more accurate the deeper they are, with scores that predict whether they are right."""
    rng = np.random.default_rng(seed)
    hardness = rng.random(samples)
    scores = np.clip(1.3 - hardness * np.array([[1.2], [0.9], [0.6], [0.3]]), 0, 1)
    right = rng.random((4, samples)) < scores
    right[-1] |= right[:-1].any(0)
    scores[-1] = 1.0
    return scores, right


def test_choice_keeps_accuracy_and_costs_less():
    scores, right = outputs()
    choice = choose_exits(scores, right, MACS, CHECKS, tolerated_loss=0.01)
    assert choice.accuracy >= right[-1].mean() - 0.01
    assert choice.mean_macs < 37
    assert choice.exits


def test_unused_checks_are_not_paid_for():
    scores, right = np.ones((4, 10)), np.ones((4, 10), dtype=bool)
    choice = choose_exits(scores, right, MACS, CHECKS)
    assert (choice.exits, choice.mean_macs) == ([0], 10)
    scores[:-1], right[:-1] = 0.0, False
    choice = choose_exits(scores, right, MACS, CHECKS)
    assert (choice.exits, choice.mean_macs, choice.accuracy) == ([], 37, 1.0)


def test_leaving_is_compared_with_the_best_answer_of_the_network():
    """The third exit knows more than the last answer; the first, free of loss against the last, is not good enough."""
    right = np.array([[True] * 80 + [False] * 20, [True] * 70 + [False] * 30, [True] * 100, [True] * 80 + [False] * 20])
    choice = choose_exits(np.ones((4, 100)), right, MACS, CHECKS)
    assert (choice.exits, choice.accuracy) == ([2], 1.0)


def test_more_tolerance_never_costs_more():
    scores, right = outputs()
    costs = [choose_exits(scores, right, MACS, CHECKS, tolerated_loss=loss).mean_macs for loss in (0, 0.005, 0.02, 0.1)]
    assert costs == sorted(costs, reverse=True)


def test_no_more_exits_than_asked_for():
    scores, right = outputs()
    for most in (0, 1, 2):
        assert len(choose_exits(scores, right, MACS, CHECKS, most=most, tolerated_loss=0.02).exits) <= most


def test_shapes_that_do_not_fit():
    with pytest.raises(CalibrationError, match="do not fit together"):
        choose_exits(np.ones((3, 5)), np.ones((3, 5)), MACS, CHECKS)


def test_exits_and_thresholds_that_are_given_are_kept():
    scores, right = outputs()
    kept = choose_exits(scores, right, MACS, CHECKS, kept=[0, 2], thresholds=[0.7])
    assert (kept.exits, kept.thresholds) == ([0, 2], [0.7, 0.7])
    assert choose_exits(scores, right, MACS, CHECKS, kept=[1], thresholds=[0.6]).thresholds == [0.6]
    free = choose_exits(scores, right, MACS, CHECKS, kept=[0, 1], tolerated_loss=0.05)
    assert free.exits == [0, 1] and len(set(free.thresholds)) == 1
    with pytest.raises(CalibrationError, match="3 thresholds for 2 exits"):
        choose_exits(scores, right, MACS, CHECKS, kept=[0, 2], thresholds=[0.1, 0.2, 0.3])
    right[:-1], right[-1] = False, True  # nothing is allowed: the most accurate threshold
    strict = choose_exits(scores, right, MACS, CHECKS, kept=[0])
    assert strict.exits == [0] and strict.thresholds == [0.99]

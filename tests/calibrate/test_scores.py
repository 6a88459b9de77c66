"""Scores from logits: by hand, in 0..1, and surer means higher."""

import numpy as np
import pytest

from pi_dynn.calibrate.scores import SCORES, entropy, entropy_score, exit_scores, margin, max_probability, patience
from pi_dynn.errors import CalibrationError

P = np.array([[[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]], [[0.1, 0.8, 0.1], [0.98, 0.01, 0.01]]])
LOGITS = np.log(P)


def test_by_hand():
    assert max_probability(LOGITS) == pytest.approx(np.array([[0.7, 0.4], [0.8, 0.98]]))
    assert margin(LOGITS) == pytest.approx(np.array([[0.5, 0.0], [0.7, 0.97]]))
    assert entropy(LOGITS) == pytest.approx(-(P * LOGITS).sum(-1))
    assert entropy_score(np.zeros((1, 1, 5))) == pytest.approx(0.0)


def test_patience_counts_equal_answers_in_a_row():
    answers = np.array([[0, 0, 1], [0, 1, 1], [0, 1, 0], [0, 1, 0]])
    assert (4 * patience(np.eye(2)[answers])).tolist() == [[1, 1, 1], [2, 1, 2], [3, 2, 1], [4, 3, 2]]


@pytest.mark.parametrize("name", SCORES)
def test_every_score_is_a_share_and_rises_with_certainty(name):
    logits = np.random.default_rng(0).standard_normal((4, 30, 6)).astype(np.float32)
    score = exit_scores(name, logits, np.zeros((4, 30)))
    assert score.shape == (4, 30) and (score >= 0).all() and (score <= 1).all()
    assert (exit_scores(name, 5 * logits, np.zeros((4, 30))) >= score).all()


def test_huge_logits_do_not_overflow():
    logits = np.array([[[1e4, -1e4, 0.0]]], dtype=np.float32)
    assert [exit_scores(name, logits, None).item() for name in SCORES] == [1.0] * 4


def test_the_gate_score_is_the_networks():
    gates = np.array([[0.3, 0.4], [1.0, 1.0]])
    assert exit_scores("gate", LOGITS, gates) is gates


def test_unknown_names_and_nan():
    with pytest.raises(CalibrationError, match="no score 'luck': give one of gate, max-probability"):
        exit_scores("luck", LOGITS, None)
    with pytest.raises(CalibrationError, match="NaN"):
        exit_scores("margin", np.full((1, 1, 3), np.nan), None)

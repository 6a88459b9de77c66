"""Savings beyond what is asked for are given for stricter thresholds."""

from dataclasses import replace

import numpy as np
import pytest
from publish import LEAST_SAVED, tightest

from pi_dynn.evaluate.outputs import ExitOutputs
from pi_dynn.train.learn.finish import TIGHTER, Leaving


def leaving(scores: list[np.ndarray], threshold: float) -> Leaving:
    """Where images leave by the scores of cheap exits."""
    early, images = len(scores), len(scores[0])
    every = np.stack([*scores, np.ones(images)])
    outputs = ExitOutputs(np.zeros((early + 1, images, 2)), every, np.zeros(images, int), [])
    return Leaving(list(range(early)), [10.0, 20.0, 100.0][-early - 1 :], outputs, [threshold] * early, [])


@pytest.mark.parametrize("sharpness", [1, 2, 4, 8])
def test_thresholds_are_as_strict_as_the_savings_allow(sharpness):
    loose = leaving([1 - np.linspace(0, 1, 200) ** sharpness], 0.1)
    strict = tightest(loose)
    assert strict.saved >= LEAST_SAVED and strict.thresholds[0] > loose.thresholds[0]
    stricter = [[1 - share * 0.9] for share in TIGHTER if 1 - share * 0.9 > strict.thresholds[0] + 1e-9]
    assert all(replace(loose, thresholds=thresholds).saved < LEAST_SAVED for thresholds in stricter)


def test_thresholds_that_save_too_little_are_left_as_they_are():
    loose = leaving([np.linspace(0, 1, 200)], 0.7)
    assert loose.saved < LEAST_SAVED and tightest(loose) == loose


def test_no_exit_is_left_without_answers():
    """A tenth leaves at the first exit with 0.5: beyond that only the second would answer, and still save enough."""
    scores = [np.where(np.arange(100) < 10, 0.5, 0.0), np.full(100, 0.999)]
    assert tightest(leaving(scores, 0.4)).thresholds == pytest.approx([0.46, 0.46])

"""The arrays every rule works on, and input that does not fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_dynn.calibrate.outcomes import ExitOutcomes, check_labels, operating_point, threshold_for
from pi_dynn.errors import CalibrationError
from tests.calibrate.synthetic import synthetic_outcomes

ONES = np.ones((3, 4))


def test_operating_point_by_hand():
    scores = np.array([[0.9, 0.1, 0.5, 0.2], [0.9, 0.8, 0.5, 0.1], [1, 1, 1, 1]])
    right = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]])
    point = operating_point(ExitOutcomes(scores, right, [10, 20, 40]), [0.5, 0.6], threshold=0.5)
    assert point.exit_rates == [0.5, 0.25, 0.25]
    assert point.exit_accuracies == [0.5, 1.0, 0.0]
    assert (point.accuracy, point.mean_cost, point.settings) == (0.5, 20.0, {"threshold": 0.5})


def test_costs_may_be_fractions_of_a_second():
    outcomes = ExitOutcomes(ONES, ONES, [0.01, 0.02, 0.04])
    assert operating_point(outcomes, [2.0, 0.5]).mean_cost == pytest.approx(0.02)


def test_a_subset_is_what_it_says():
    outcomes = synthetic_outcomes(50)
    part = outcomes.subset(np.array([3, 7]))
    assert part.images == 2 and (part.scores == outcomes.scores[:, [3, 7]]).all()


@pytest.mark.parametrize(
    ("scores", "right", "costs", "message"),
    [
        (ONES, np.ones((3, 5)), [1, 2, 3], r"scores \(3, 4\), answers \(3, 5\) and 3 costs do not fit"),
        (ONES, ONES, [1, 2], "2 costs do not fit"),
        (np.ones((1, 4)), np.ones((1, 4)), [1], "no early exit"),
        (np.ones((3, 0)), np.ones((3, 0)), [1, 2, 3], "no images"),
        (np.where(np.eye(3, 4) > 0, np.nan, 1), ONES, [1, 2, 3], "1 of 4 scores of exit 1 are NaN"),
        (ONES, ONES, [3, 2, 1], r"\[3.0, 2.0, 1.0\], must be positive and rise"),
        (ONES, ONES, [1, 2, np.inf], "must be positive and rise"),
    ],
)
def test_arrays_that_do_not_fit(scores, right, costs, message):
    with pytest.raises(CalibrationError, match=message) as caught:
        ExitOutcomes(scores, right, costs)
    assert "\n" not in str(caught.value)


def test_the_last_score_is_not_looked_at():
    scores = ONES.copy()
    scores[-1] = np.nan
    assert operating_point(ExitOutcomes(scores, ONES, [1, 2, 3]), [2.0, 2.0]).exit_rates == [0, 0, 1]


def test_labels_unfit_for_calibration():
    check_labels(np.array([0, 1, 2]), 3)
    with pytest.raises(CalibrationError, match="2 images for 3 classes"):
        check_labels(np.array([0, 1]), 3)
    with pytest.raises(CalibrationError, match="all 4 images are of class 1"):
        check_labels(np.array([1, 1, 1, 1]), 3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30, unique=True), st.data())
def test_a_threshold_is_no_score_that_was_seen(values, data):
    """So a rounding error on another machine moves no image, unless two scores are neighbouring numbers."""
    scores = np.array(values)
    leaving = data.draw(st.integers(0, len(scores)))
    threshold = threshold_for(scores, leaving)
    assert (scores >= threshold).sum() == leaving
    gaps = np.diff(np.unique(scores))
    if leaving < len(scores) and (len(gaps) == 0 or gaps.min() > 1e-12):
        assert threshold not in scores

"""The three statistics, against samples whose answers are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_dynn import stats
from pi_dynn.errors import InputError

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


@given(numbers)
def test_the_interval_holds_the_median_and_stays_inside_the_sample(values):
    low, high = stats.bootstrap_interval(values, resamples=200)
    assert min(values) <= low <= high <= max(values)


@given(numbers)
def test_half_of_the_values_lie_on_each_side_of_the_median(values):
    middle = stats.median(values)
    assert sum(value <= middle for value in values) >= len(values) / 2
    assert sum(value >= middle for value in values) >= len(values) / 2
    assert middle == pytest.approx(stats.percentile(values, 50))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(300):
        low, high = stats.bootstrap_interval(rng.normal(10.0, 2.0, 25), resamples=400)
        hits += low <= 10.0 <= high
    assert 0.89 <= hits / 300 <= 0.99


def test_more_confidence_is_a_wider_interval():
    values = np.random.default_rng(1).normal(size=40)
    narrow = stats.bootstrap_interval(values, confidence=0.5)
    wide = stats.bootstrap_interval(values, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_another_statistic():
    low, high = stats.bootstrap_interval([1.0, 2.0, 3.0, 50.0], statistic=np.mean)
    assert low < 14.0 < high


@pytest.mark.parametrize("values", [[], [float("nan")], [1.0, float("inf")], [[1.0, 2.0]]])
def test_no_statistics_of_nothing(values):
    for statistic in (stats.median, stats.standard_deviation, stats.bootstrap_interval):
        with pytest.raises(InputError, match="finite numbers"):
            statistic(values)


def test_arguments_out_of_range():
    with pytest.raises(InputError, match="between 0 and 100"):
        stats.percentile([1.0], 101)
    with pytest.raises(InputError, match="between 0 and 1"):
        stats.bootstrap_interval([1.0], confidence=95)

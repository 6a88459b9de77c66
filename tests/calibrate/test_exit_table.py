"""Exit tables: by hand, against the published tables, and in general."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_dynn.calibrate.outcomes import exit_table, leave_at, mean_cost
from pi_dynn.errors import CalibrationError

# Published: images per layer, accuracy per layer in percent, accuracy of the whole in percent, mean blocks run
PUBLISHED = {
    "NaSC, distilled with exits": ([7, 9, 10, 11], [1080, 1253, 1171, 496], [1073, 1238, 1165, 439], 97.875, 10.001),
    "NaSC, with exits": ([1, 4, 9, 11], [1220, 1947, 802, 31], [1209, 1904, 757, 25], 97.375, 5.142),
}


def test_by_hand():
    scores = np.array([[0.9, 0.1, 0.5, 0.2], [0.9, 0.8, 0.5, 0.1], [1, 1, 1, 1]])
    assert leave_at(scores, [0.5, 0.6]).tolist() == [0, 1, 0, 2]
    right = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]], dtype=bool)
    rows = exit_table(leave_at(scores, [0.5, 0.6]), right, [3, 6, 11], [10, 20, 40])
    assert [(row.count, row.rate, row.accuracy) for row in rows] == [(2, 0.5, 0.5), (1, 0.25, 1.0), (1, 0.25, 0.0)]
    assert mean_cost(leave_at(scores, [0.5, 0.6]), [10, 20, 40]) == (10 + 20 + 10 + 40) / 4


def test_an_exit_without_images_has_no_accuracy():
    rows = exit_table(np.array([1, 1]), np.ones((2, 2), dtype=bool), [3, 11], [1, 2])
    assert (rows[0].count, rows[0].accuracy) == (0, None)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tables(name):
    blocks, counts, right_counts, acc1, mean_blocks = PUBLISHED[name]
    exits = np.repeat(np.arange(len(blocks)), counts)
    right = np.zeros((len(blocks), len(exits)), dtype=bool)
    start = 0
    for k, (count, good) in enumerate(zip(counts, right_counts, strict=True)):
        right[k, start : start + good] = True
        start += count
    rows = exit_table(exits, right, blocks, [block + 1 for block in blocks])
    assert 100 * sum(row.rate * row.accuracy for row in rows) == pytest.approx(acc1, abs=5e-4)
    assert mean_cost(exits, [row.macs for row in rows]) == pytest.approx(mean_blocks, abs=5e-4)


@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=50)
def test_a_higher_threshold_never_leaves_earlier(exits, samples, seed, threshold):
    scores = np.random.default_rng(seed).random((exits + 1, samples))
    low = leave_at(scores, [threshold] * exits)
    high = leave_at(scores, [min(1.0, threshold + 0.2)] * exits)
    assert (high >= low).all()
    assert (leave_at(scores, [0.0] * exits) == 0).all()
    assert (leave_at(scores, [2.0] * exits) == exits).all()


def test_input_that_does_not_fit():
    with pytest.raises(CalibrationError, match="2 early exits need as many"):
        leave_at(np.ones((3, 4)), [0.5])
    with pytest.raises(CalibrationError, match="NaN"):
        leave_at(np.array([[np.nan], [1.0]]), [0.5])

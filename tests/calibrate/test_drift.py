"""Stable exit shares raise no alarm, and a drift raises one."""

import numpy as np
import pytest

from pi_dynn.calibrate.drift import ALPHA, WINDOW, DriftWatch, chi_square_tail, compare_shares

SHARES = [0.4, 0.3, 0.2, 0.1]


@pytest.mark.parametrize(
    ("statistic", "freedom", "tail"), [(10.828, 1, 0.001), (13.816, 2, 0.001), (18.467, 4, 0.001), (20.515, 5, 0.001)]
)
def test_tabled_values(statistic, freedom, tail):
    assert chi_square_tail(statistic, freedom) == pytest.approx(tail, rel=2e-3)
    assert chi_square_tail(0.0, freedom) == 1.0


def test_false_alarms_are_as_rare_as_they_should_be():
    rng = np.random.default_rng(0)
    values = [compare_shares(counts, SHARES) for counts in rng.multinomial(200, SHARES, size=4000)]
    assert np.mean(np.array(values) < 0.05) == pytest.approx(0.05, abs=0.015)
    assert np.mean(np.array(values) < 0.001) < 0.004


@pytest.mark.parametrize("share", [0.0005, 0.002, 0.004, 0.02])
def test_a_rare_exit_raises_no_more_false_alarms(share):
    expected = [0.5, 0.5 - share, share]
    counts = np.random.default_rng(0).multinomial(WINDOW, expected, size=10_000)
    alarms = np.mean([compare_shares(row.tolist(), expected) < ALPHA for row in counts])
    assert alarms < 2 * ALPHA
    assert compare_shares([WINDOW // 2, WINDOW // 2 - 16, 16], expected) < ALPHA


def test_rare_exits_are_counted_together():
    assert compare_shares([100, 0, 0], [0.98, 0.01, 0.01]) > 0.1
    assert compare_shares([80, 10, 10], [0.98, 0.01, 0.01]) < 1e-6
    assert compare_shares([90, 10], [1.0, 0.0]) == 0.0
    assert compare_shares([100, 0], [1.0, 0.0]) == 1.0


def warnings(watch: DriftWatch, exits) -> list[int]:
    return [i for i, exit_index in enumerate(exits) if watch.add(int(exit_index)) is not None]


def test_images_like_those_of_the_record_pass():
    rng = np.random.default_rng(1)
    assert warnings(DriftWatch(SHARES, window=200), rng.choice(4, 3000, p=SHARES)) == []


def test_one_report_for_each_drift():
    rng = np.random.default_rng(2)
    like, unlike = rng.choice(4, (2, 600), p=SHARES), rng.choice(4, (2, 600), p=SHARES[::-1])
    alarms = warnings(DriftWatch(SHARES, window=200), np.concatenate((like[0], unlike[0], like[1], unlike[1])))
    assert len(alarms) == 2
    assert 600 <= alarms[0] < 1000 and 1800 <= alarms[1] < 2200


def test_it_reports_both_shares():
    watch = DriftWatch([0.5, 0.5], window=40)
    drifts = [drift for drift in (watch.add(1) for _ in range(40)) if drift is not None]
    assert (drifts[0].images, drifts[0].shares, drifts[0].expected) == (40, [0.0, 1.0], [0.5, 0.5])
    assert drifts[0].p_value < 1e-6


def test_other_thresholds_start_it_over():
    watch = DriftWatch([0.5, 0.5], window=40)
    for _ in range(30):
        watch.add(1)
    watch.expect([0.0, 1.0])
    assert warnings(watch, [1] * 200) == []

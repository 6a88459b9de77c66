"""Geometric exit shares."""

import pytest

from pi_dynn.calibrate.percentile import PUBLISHED_RATIOS, exit_shares, msdnet_points
from tests.calibrate.synthetic import synthetic_outcomes


@pytest.mark.parametrize("ratio", [0.05, 0.5, 1.0, 1.95])
def test_shares_are_geometric_and_kept(ratio):
    shares = exit_shares(ratio, 5)
    assert shares.sum() == pytest.approx(1.0)
    assert shares[1:] / shares[:-1] == pytest.approx(ratio)
    assert msdnet_points(synthetic_outcomes(2000), [ratio])[0].exit_rates == pytest.approx(shares, abs=1e-3)


def test_the_published_ratios_run_from_cheap_to_dear():
    points = msdnet_points(synthetic_outcomes(2000))
    assert (len(points), PUBLISHED_RATIOS[0], PUBLISHED_RATIOS[-1]) == (39, 0.05, 1.95)
    assert [point.mean_cost for point in points] == sorted(point.mean_cost for point in points)


def test_more_exits_than_images():
    assert msdnet_points(synthetic_outcomes(2, exits=6), [1.0])[0].mean_cost > 0

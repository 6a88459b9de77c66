"""A day's energy is never exceeded, and is used where there is something to answer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_dynn.calibrate.allowance import DAY_S, KEPT_S, SPREAD_S, EnergyAllowance
from pi_dynn.calibrate.records import OperatingPoint
from pi_dynn.errors import CalibrationError

CURVE = [OperatingPoint([k / 10], 0.5 + k / 10, k * 0.01, [0.5, 0.5], [1.0, 1.0]) for k in range(1, 5)]


def spent(allowance: EnergyAllowance, pauses_s, duration_s: float) -> tuple[float, list[float]]:
    """Joules, and the cost of each answer, or 0 where it was not paid."""
    now_s, costs = 0.0, []
    pauses = iter(pauses_s)
    while now_s < duration_s:
        point = allowance.point(now_s)
        costs.append(0.0 if point is None else point.mean_cost)
        if point is not None:
            allowance.spend(point.mean_cost, now_s)
        now_s += next(pauses)
    return allowance.spent_j, costs


def forever(pause_s: float):
    while True:
        yield pause_s


@pytest.mark.parametrize(
    ("joules_per_day", "low", "high"),
    [
        (4.0 * 8640, 0.0395, 0.0401),  # more than the dearest point takes
        (2.5 * 864, 0.024, 0.026),  # between two points
        (0.4 * 864, 0.0, 0.0101),  # less than the cheapest takes: some are not answered
    ],
)
def test_a_frame_a_second_takes_what_is_allowed(joules_per_day, low, high):
    allowance = EnergyAllowance(CURVE, joules_per_day, 1.0)
    _, costs = spent(allowance, forever(1.0), 2 * DAY_S)
    second_day = costs[len(costs) // 2 :]
    mean = sum(second_day) / len(second_day)
    assert low <= mean <= high
    assert sum(second_day) <= joules_per_day * 1.001
    if joules_per_day < 4.0 * 864:
        assert sum(second_day) >= 0.98 * joules_per_day


def test_quiet_hours_pay_for_busy_ones():
    allowance = EnergyAllowance(CURVE, 2.0 * 864, 1.0)
    _, quiet = spent(allowance, forever(60.0), KEPT_S)
    assert quiet[-1] == 0.04
    busy = []
    for i in range(600):
        point = allowance.point(KEPT_S + i)
        allowance.spend(point.mean_cost, KEPT_S + i)
        busy.append(point.mean_cost)
    assert sum(busy) / len(busy) > 0.03  # while 0.02 accrues


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 600.0), min_size=1, max_size=8), st.floats(1.0, 5000.0))
def test_no_more_is_spent_than_has_accrued(pauses_s, joules_per_day):
    allowance = EnergyAllowance(CURVE, joules_per_day, 1.0)
    duration_s = min(DAY_S, 3000 * min(pauses_s))
    energy_j, _ = spent(allowance, (pauses_s[i % len(pauses_s)] for i in range(10**6)), duration_s)
    assert energy_j <= joules_per_day * (duration_s + SPREAD_S) / DAY_S + 0.04 + 1e-9


def test_seconds_are_turned_into_joules_by_a_power():
    allowance = EnergyAllowance(CURVE, 1000.0, 3.0)
    allowance.point(0.0)
    allowance.spend(0.02, 0.0)
    assert allowance.spent_j == pytest.approx(0.06)


@pytest.mark.parametrize(("curve", "joules"), [([], 1.0), (CURVE, 0.0), (CURVE, float("nan"))])
def test_what_cannot_be_kept(curve, joules):
    with pytest.raises(CalibrationError, match="J a day"):
        EnergyAllowance(curve, joules, 1.0)

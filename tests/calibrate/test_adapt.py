"""Cheaper thresholds while the board is hot or its battery low, with hysteresis."""

import pytest

from pi_dynn.calibrate.adapt import BoardState, CurveWalker, Limits
from pi_dynn.calibrate.records import OperatingPoint
from pi_dynn.errors import CalibrationError

CURVE = [OperatingPoint([k / 10], 0.5 + k / 10, float(k), [0.5, 0.5], [1.0, 1.0]) for k in range(1, 5)]
HOT, WARM, COOL = BoardState(80.0), BoardState(70.0), BoardState(60.0)


def costs(walker: CurveWalker, states, step_s: float = 10.0) -> list[float]:
    mean_costs = []
    for i, state in enumerate(states):
        walker.watch(state, i * step_s)
        mean_costs.append(walker.point.mean_cost)
    return mean_costs


def test_it_gets_cheaper_while_hot_and_recovers_when_cool():
    assert costs(CurveWalker(CURVE, 3.0), [COOL, HOT, HOT, HOT, WARM, COOL, COOL, COOL]) == [3, 2, 1, 1, 1, 2, 3, 3]


def test_between_the_limits_it_stays():
    assert costs(CurveWalker(CURVE, 4.0), [HOT, WARM, WARM, WARM, WARM]) == [3, 3, 3, 3, 3]


def test_a_step_is_followed_by_a_pause():
    walker = CurveWalker(CURVE, 4.0, Limits(hold_s=5.0))
    assert costs(walker, [HOT] * 12, step_s=1.0) == [3] * 5 + [2] * 5 + [1] * 2


def test_temperature_around_a_limit_moves_it_once():
    assert set(costs(CurveWalker(CURVE, 4.0), [BoardState(75.1), BoardState(74.9)] * 10)[2:]) <= {3, 2, 1}
    walker = CurveWalker(CURVE, 4.0)
    moves = [walker.watch(BoardState(68.1 if i % 2 else 74.9), 10.0 * i) for i in range(20)]
    assert not any(moves)


def test_throttling_and_a_low_battery_count_too():
    assert costs(CurveWalker(CURVE, 4.0), [BoardState(50.0, ("throttled",))]) == [3]
    charge = [BoardState(battery_percent=percent) for percent in (80, 15, 30, 30, 50)]
    assert costs(CurveWalker(CURVE, 4.0), charge) == [4, 3, 3, 3, 4]


def test_an_unknown_state_changes_nothing():
    assert costs(CurveWalker(CURVE, 4.0), [BoardState()] * 3) == [4, 4, 4]


def test_nowhere_to_go_and_limits_without_room():
    with pytest.raises(CalibrationError, match="no point cheaper"):
        CurveWalker(CURVE, 1.0)
    with pytest.raises(CalibrationError, match="must leave room"):
        Limits(hot_c=60.0, cool_c=70.0)

"""Thresholds that move while a watch runs: with the heat of the board, and within an allowance of energy."""

import numpy as np
import pytest

from pi_dynn.calibrate.adapt import BoardState
from pi_dynn.calibrate.allowance import EnergyAllowance
from pi_dynn.calibrate.records import CalibrationRecord, OperatingPoint
from pi_dynn.classify.planned import PlannedThresholds, joules_per_cost
from pi_dynn.classify.run import plan_of
from pi_dynn.clock import FakeClock
from pi_dynn.data.frames import Frame
from pi_dynn.errors import CalibrationError
from pi_dynn.power.estimate import PowerModel
from pi_dynn.records import Prediction

CURVE = [OperatingPoint([k / 10] * 3, 0.6 + k / 10, 0.01 * k, [0.25] * 4, [1.0] * 4) for k in range(1, 4)]
HOT, COOL = BoardState(85.0), BoardState(50.0)
PICTURE = np.zeros((4, 4, 3), np.uint8)


def record(unit: str = "s", bundle: str = "b" * 64) -> CalibrationRecord:
    return CalibrationRecord(
        *("sweep", "gate", CURVE[-1].thresholds, [1, 4, 8, 11], [0.25] * 4, 0.9, 0.9, CURVE[-1].mean_cost),
        *([0.01, 0.02, 0.03, 0.04], unit, 100, bundle, "data", None, None, {}, CURVE),
    )


def answer(exit_index: int) -> Prediction:
    return Prediction("a", 0, 0.9, exit_index, 1, 0.9, 0.01, [("a", 0.9)])


def test_heat_makes_it_cheaper_and_is_told():
    clock, states, moves = FakeClock(), [COOL, HOT, HOT, COOL], []
    planned = PlannedThresholds(
        plan_of(record()), clock, board_state=lambda: states.pop(0), on_move=lambda point: moves.append(point.mean_cost)
    )
    limits = []
    while states:
        limits.append(planned.thresholds()[0])
        clock.advance(10.0)
    assert limits == [0.3, 0.2, 0.1, 0.2] and moves == [0.02, 0.01, 0.02]


def test_an_allowance_is_kept_and_frames_beyond_it_are_counted():
    """A frame a second for a day, on the dearest exit whatever the thresholds say."""
    clock = FakeClock()
    joules = 0.02 * 3600 * 10
    planned = PlannedThresholds(plan_of(record()), clock, allowance=EnergyAllowance(CURVE, joules, 1.0))

    def frames():
        for i in range(86_400):
            clock.advance(1.0)
            yield Frame("c", i, PICTURE, clock.now_ns())

    answers = sum(1 for _ in planned.paid((frame, answer(3)) for frame in planned.affordable(frames())))
    assert answers + planned.unpaid == 86_400 and planned.unpaid > 60_000
    spent = planned.spent("board input (model)")
    assert spent.net_j == pytest.approx(0.04 * answers) and spent.net_j <= joules * 25 / 24 + 0.04
    assert spent.measured is False and spent.meter_label == "ESTIMATED"


def test_a_small_allowance_takes_cheap_thresholds():
    clock = FakeClock()
    planned = PlannedThresholds(plan_of(record()), clock, allowance=EnergyAllowance(CURVE, 0.012 * 86_400, 1.0))
    limits = []
    for i in range(20_000):
        clock.advance(1.0)
        for _ in planned.paid((frame, answer(0)) for frame in planned.affordable([Frame("c", i, PICTURE, 0)])):
            limits.append(planned.thresholds()[0])
    assert set(limits) <= {0.1, 0.2, 0.3} and 0.1 in limits


def test_without_either_the_thresholds_are_those_of_the_plan():
    planned = PlannedThresholds(plan_of(record()), FakeClock())
    assert planned.thresholds() == [0.3] * 3 and planned.spent("x") is None


def test_costs_are_energy_or_become_it_by_a_model():
    model = PowerModel("board", 2.0, 6.0, "source")
    assert joules_per_cost(record("J"), 0.25, model) == 1.0
    assert joules_per_cost(record("s"), 0.25, model) == pytest.approx(1.0)
    with pytest.raises(CalibrationError, match="--costs"):
        joules_per_cost(record("macs"), 0.25, model)

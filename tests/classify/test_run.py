"""Classifying by a record: drift is reported, and heat makes thresholds cheaper."""

from types import SimpleNamespace

import pytest

from pi_dynn.calibrate.adapt import BoardState, CurveWalker
from pi_dynn.calibrate.drift import DriftWatch
from pi_dynn.calibrate.records import CalibrationRecord, OperatingPoint
from pi_dynn.classify.run import Tally, adapted_answers, plan_of, read_board_state, watched_for_drift
from pi_dynn.errors import CalibrationError
from pi_dynn.power.fake import SimulatedClock
from pi_dynn.records import Prediction

CURVE = [
    OperatingPoint([0.0], 0.7, 10.0, [1.0, 0.0], []),
    OperatingPoint([0.5], 0.8, 20.0, [0.5, 0.5], []),
    OperatingPoint([0.9], 0.9, 30.0, [0.0, 1.0], []),
]
RECORD = CalibrationRecord(
    rule="budget",
    score="gate",
    thresholds=[0.9],
    exits=[4, 11],
    exit_rates=[0.0, 1.0],
    accuracy=0.9,
    full_depth_accuracy=0.9,
    mean_cost=30.0,
    costs=[10.0, 30.0],
    cost_unit="macs",
    images=100,
    bundle="ab",
    dataset="ucm",
    split=None,
    part=None,
    settings={},
    curve=CURVE,
)


class GateSession:
    """A session whose images are their own gate score; an answer takes two seconds."""

    exits, engine, threads = 1, "fp32", 1
    bundle = SimpleNamespace(sha256="ab")
    manifest = SimpleNamespace(blocks=[4, 11])
    preprocess = float

    def __init__(self, clock) -> None:
        self.clock = clock

    def classify(self, score, thresholds, deadline_s=None, top=1):
        self.clock.sleep(2.0)
        exit_index = 0 if score >= thresholds[0] else 1
        return Prediction("a", 0, 0.9, exit_index, self.manifest.blocks[exit_index], score, 2.0, [])

    def answer_stream(self, images, batch_size, thresholds, deadline_s, top):
        for key, image in images:
            yield key, self.classify(float(image), thresholds, deadline_s, top)


def run(scores, board_state=None, record=RECORD):
    """The exit each image left at, the drifts and the moves."""
    clock, drifts, moves = SimulatedClock(), [], []
    session, images, point = GateSession(clock), [(str(score), str(score)) for score in scores], plan_of(record).point
    watch = DriftWatch(point.exit_rates)
    if board_state is None:
        answers = session.answer_stream(images, 1, point.thresholds, None, 1)
    else:
        walker = CurveWalker(record.curve, point.mean_cost)

        def on_move(point) -> None:
            watch.expect(point.exit_rates)
            moves.append(point)

        answers = adapted_answers(session, images, walker, board_state, clock, on_move)
    tally = Tally(session, clock)
    exits = [answer.exit_index for _, answer in tally.count(watched_for_drift(answers, watch, drifts.append))]
    assert tally.summary().images == len(scores)
    return exits, drifts, moves


def test_the_records_thresholds_decide():
    assert run([0.95, 0.85])[0] == [0, 1]


def test_drift_is_reported_once():
    exits, drifts, _ = run([0.1] * 250 + [0.95] * 300)
    assert len(drifts) == 1 and drifts[0].expected == [0.0, 1.0]
    assert run([0.1] * 500)[1] == []


def test_heat_moves_it_down_the_curve_and_cooling_back():
    heat = iter([60.0] * 3 + [90.0] * 8 + [60.0] * 12)
    exits, _, moves = run([0.6] * 23, board_state=lambda: BoardState(next(heat)))
    assert [point.mean_cost for point in moves] == [20.0, 10.0, 20.0, 30.0]
    assert exits[:3] == [1, 1, 1] and exits[4:11] == [0] * 7 and exits[-1] == 1


def test_drift_is_judged_by_the_point_in_use():
    # All leave at the first exit as the cheapest point expects; at the start none would.
    _, drifts, moves = run([0.6] * 450, board_state=lambda: BoardState(90.0))
    assert len(moves) == 2 and drifts == []


def test_a_curve_without_anything_cheaper():
    record = CalibrationRecord.from_dict(RECORD.to_dict() | {"curve": [CURVE[-1].to_dict()]})
    with pytest.raises(CalibrationError, match="no point cheaper"):
        run([0.5], board_state=BoardState, record=record)


def test_a_record_of_another_score():
    with pytest.raises(CalibrationError, match="a bundle leaves by its gates"):
        plan_of(CalibrationRecord.from_dict(RECORD.to_dict() | {"score": "margin"}))


def test_a_board_in_words():
    board = SimpleNamespace(temperature_c=lambda: 71.5, live_throttle_bits=lambda: 0x4)
    assert read_board_state(board, lambda: 33.0) == BoardState(71.5, ("throttled",), 33.0)
    silent = SimpleNamespace(temperature_c=lambda: None, live_throttle_bits=lambda: None)
    assert read_board_state(silent) == BoardState()

"""The energy of any function, on simulated time."""

import pytest

from pi_dynn.clock import FakeClock
from pi_dynn.energy.protocol import EnergyParts, EnergySettings, measure_call
from pi_dynn.energy.rehearsal import (
    ACTIVE_POWER_W,
    IDLE_POWER_W,
    RehearsedSession,
    rehearsal_parts,
    rehearsed_call,
)
from pi_dynn.energy.results import energy_results
from pi_dynn.power.fake import SimulatedClock
from tests.energy.simulated import Bench, SimulatedBoard

QUICK = EnergySettings(trials=3, trial_s=1.0, idle_s=0.5)


def test_a_call_costs_its_time_times_what_it_draws():
    with rehearsal_parts(SimulatedBoard()) as parts:
        (result,) = energy_results(*measure_call(parts, lambda: parts.clock.sleep(0.02), "nap", QUICK))
    assert result.valid, result.invalid_reasons
    assert result.net_j == pytest.approx(0.02 * (ACTIVE_POWER_W - IDLE_POWER_W), rel=0.01)
    assert result.trial_s >= QUICK.trial_s
    assert (result.name, result.exits, result.label) == ("nap", [], "SIMULATED")


def test_unplugged_it_ends_and_says_so():
    bench = Bench()
    calls = []

    def call() -> None:
        calls.append(None)
        bench.clock.sleep(0.01)
        if len(calls) == 150:
            bench.bus.unplug()

    parts = EnergyParts(bench.meter, bench.clock, bench.board, bench.working)
    (result,) = energy_results(*measure_call(parts, call, "nap", QUICK))
    assert not result.valid
    assert any("sampling ended early" in reason for reason in result.invalid_reasons)
    assert len(calls) < 170


def test_a_rehearsed_call_takes_the_median_of_its_real_durations():
    real, simulated = FakeClock(), SimulatedClock()
    times = iter([0.01, 0.5, 0.03, 0.02, 0.02, 0.02, 0.9])
    rehearsed = rehearsed_call(lambda: real.sleep(next(times)), simulated, real)
    rehearsed()
    rehearsed()
    assert simulated.now_ns() == pytest.approx(0.04e9)


def test_a_rehearsed_session_answers_each_image_once():
    bench = Bench()
    session = bench.session
    session.resolve_thresholds = lambda thresholds: thresholds
    clock = SimulatedClock()
    rehearsed = RehearsedSession(session, clock)
    first = rehearsed.classify(4, [0.5, 0.5])
    answered = session.answered
    assert [rehearsed.classify(4, [0.5, 0.5]) for _ in range(50)] == [first] * 50
    assert session.answered == answered
    assert first.exit_index == 1
    assert clock.now_ns() == pytest.approx(51 * 0.020e9)
    assert rehearsed.exits == session.exits


def test_a_trial_calls_no_more_often_than_it_says():
    settings = EnergySettings(trials=3, n=205, idle_s=1.0, exact_n=True)  # no multiple of what is called at once
    with rehearsal_parts(SimulatedBoard()) as parts:
        run = measure_call(parts, lambda: parts.clock.sleep(0.02), "nap", settings)
    assert [one.elapsed_s for one in run.recording.trials] == pytest.approx([205 * 0.02] * 3, rel=1e-3)

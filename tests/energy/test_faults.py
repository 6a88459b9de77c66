"""Faults in the middle of a run: it ends, is invalid with a reason, and its trace is kept."""

from dataclasses import replace

import pytest

from pi_dynn.energy.results import energy_results
from pi_dynn.energy.runs import replay_run, save_run
from tests.energy.simulated import QUICK, Bench

MIDDLE = 210  # answers: warm-up, latency pass and two trials are over


def broken_run(bench: Bench, break_it, at: int = MIDDLE):
    """Measure, with `break_it()` called before answer number `at`; the measurement and its one result."""
    fired = []

    def on_answer(number: int) -> None:
        if number == at:
            fired.append(number)
            break_it()

    bench.session.on_answer = on_answer
    measurement = bench.measure()
    assert fired
    (result,) = energy_results(*measurement)
    return measurement, result


def is_kept(measurement, result, tmp_path) -> bool:
    """Whether the saved run gives the same figures again."""
    path = tmp_path / "run.json"
    save_run(path, measurement, [result])
    _, again = replay_run(path)
    return again == [result]


def test_unplugged_it_ends_at_once_with_the_reason(tmp_path):
    bench = Bench()
    measurement, result = broken_run(bench, bench.bus.unplug)
    assert not result.valid
    assert any("sampling ended early" in reason and "no acknowledge" in reason for reason in result.invalid_reasons)
    assert bench.session.answered < MIDDLE + 10
    assert result.net_j is not None  # the trials before are shown
    assert is_kept(measurement, result, tmp_path)


def test_unplugged_before_the_first_trial_there_are_no_figures(tmp_path):
    bench = Bench()
    bench.bus.nack_from = bench.bus.transfers + 20
    measurement = bench.measure()
    (result,) = energy_results(*measurement)
    assert not result.valid
    assert result.net_j is None
    assert is_kept(measurement, result, tmp_path)


def test_a_chip_reset_is_seen_and_makes_the_run_invalid(tmp_path):
    bench = Bench()
    measurement, result = broken_run(bench, bench.chip.brown_out)
    assert any("chip reset 1 times" in reason for reason in result.invalid_reasons)
    assert result.trials == QUICK.trials  # it goes on, set up again
    assert is_kept(measurement, result, tmp_path)


def test_clipped_current_makes_the_run_invalid(tmp_path):
    bench = Bench()

    def draw_too_much() -> None:
        bench.session.power_w = (20.0, 20.0, 20.0)

    measurement, result = broken_run(bench, draw_too_much)
    assert any("clipped samples" in reason for reason in result.invalid_reasons)
    assert result.clipped > 0
    assert is_kept(measurement, result, tmp_path)


@pytest.mark.parametrize("bits", [0x4, 0x40000, 0x50005])
def test_throttled_it_is_invalid_also_when_only_the_sticky_bit_shows_it(bits, tmp_path):
    bench = Bench()
    measurement, result = broken_run(bench, lambda: setattr(bench.board, "bits", bits))
    assert any("throttle" in reason for reason in result.invalid_reasons)
    assert is_kept(measurement, result, tmp_path)


def test_a_throttling_that_is_over_again_still_counts():
    bench = Bench()
    bench.board.live = lambda: 0x4 if "trial 3" in bench.stages[-1] else 0x0
    (result,) = energy_results(*bench.measure())
    assert any("throttled during the run" in reason for reason in result.invalid_reasons)


def test_a_governor_that_changes_makes_it_invalid():
    bench = Bench()
    _, result = broken_run(bench, lambda: setattr(bench.board, "governor", "powersave"))
    assert any("governor changed" in reason for reason in result.invalid_reasons)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_interrupted_what_there_is_is_shown_as_invalid(tmp_path):
    measurement, result = broken_run(Bench(), interrupt)
    assert measurement.recording.interrupted
    assert "interrupted" in result.invalid_reasons
    assert any("2 of 5 trials" in reason for reason in result.invalid_reasons)
    assert result.net_j is not None
    assert is_kept(measurement, result, tmp_path)


@pytest.mark.parametrize("at", [0, 5, 60, 140])
def test_interrupted_at_any_time_it_returns(at, tmp_path):
    measurement, result = broken_run(Bench(), interrupt, at)
    assert not result.valid
    assert measurement.recording.interrupted
    assert is_kept(measurement, result, tmp_path)


def test_the_part_of_a_trial_that_was_measured_is_shown_if_there_is_nothing_else():
    _, result = broken_run(Bench(), interrupt, 100)
    assert result.trials == 1
    assert 0 < result.n < QUICK.n


def test_two_trials_are_enough_to_replay(tmp_path):
    bench = Bench()
    measurement = bench.measure(replace(QUICK, trials=2))
    (result,) = energy_results(*measurement)
    assert result.valid, result.invalid_reasons
    assert is_kept(measurement, result, tmp_path)

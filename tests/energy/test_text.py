"""The text of energy runs, compared exactly."""

import re
from dataclasses import replace

import pytest

from pi_dynn.energy.results import energy_results
from pi_dynn.energy.text import energy_log, energy_notes, energy_table, energy_text
from pi_dynn.text import significant
from tests.energy.simulated import QUICK, Bench, SimulatedSession
from tests.golden import assert_golden


@pytest.fixture(scope="module")
def pair():
    bench = Bench(noise_v=0.0)
    slow = SimulatedSession(bench.clock, bench.work, latency_s=(0.040, 0.080, 0.160))
    settings = replace(QUICK, trials=3, each_exit=True)
    candidates = [bench.candidate(slow, name="base"), bench.candidate(name="early exits")]
    return energy_results(*bench.measure(settings, candidates))


def test_text_is_as_kept(pair):
    assert_golden("energy.txt", energy_text(pair))


def test_markdown_is_as_kept(pair):
    assert_golden("energy.md", energy_text(pair, markdown=True))


def test_an_invalid_run_is_as_kept():
    bench = Bench(noise_v=0.0)
    bench.session.on_answer = lambda number: bench.bus.unplug() if number == 210 else None
    bench.board.governor = "ondemand"
    results = energy_results(*bench.measure())
    notes = "\n".join(f"Note: {note}" for note in energy_notes(results))
    assert_golden("energy_unplugged.txt", energy_text(results) + "\n" + notes)


def rows(text: str) -> list[str]:
    """The lines of the tables that hold a figure in millijoules or a rate."""
    return [
        line
        for line in text.splitlines()
        if re.search(r"\d (mJ|%|ms)", line) and not re.search("FPS|interval|samples", line)
    ]


@pytest.mark.parametrize("label", ["SIMULATED", "ESTIMATED"])
def test_what_was_not_measured_says_so_in_every_row(pair, label):
    changed = [replace(result, label=label) for result in pair]
    lines = rows(energy_text(changed))
    assert len(lines) >= 9
    assert all(label in line for line in lines)
    assert any(label in note for note in energy_notes(changed))


def test_what_was_measured_names_its_meter_and_scope(pair):
    measured = [
        replace(result, measured=True, label="MEASURED", meter="ina219", scope="board input") for result in pair
    ]
    assert all("ina219, board input" in line for line in energy_table(measured).splitlines()[1:])
    assert not any("no power meter" in note for note in energy_notes(measured))


def test_a_net_energy_lost_in_noise_is_called_that(pair):
    lost = [replace(pair[1], net_j=1e-4, net_ci95_j=(-1e-3, 1.2e-3), resolved=False, trials_to_resolve=400)]
    assert any("about 400 trials would resolve it" in note for note in energy_notes(lost))
    assert "not resolved" in energy_table(lost)
    assert "0.1000 mJ" not in energy_table(lost)


def test_without_figures_there_are_dashes(pair):
    bare = replace(pair[1], net_j=None, net_ci95_j=None, gross_j=None, acc1=None, parameters=None, improvement=None)
    line = energy_table([bare]).splitlines()[1]
    assert line.split()[2:5] == ["-", "NaSC", "-"]


@pytest.mark.parametrize(
    ("value", "text"), [(1244.0, "1,244"), (412.128, "412.1"), (27.17, "27.17"), (3.4821, "3.482"), (-0.05, "-0.050")]
)
def test_four_digits(value, text):
    assert significant(value, 4) == text


def test_log_has_the_published_lines(pair):
    timed = {"images_per_s": 4.8769652180280945, "elapsed_s": 0.20504554682970047, "latency_s": 0.19002768886089325}
    measured = replace(pair[0], **timed, measured=True, label="measured", valid=True, active_power_w=3.23)
    timed = {"images_per_s": 5.728621847950494, "elapsed_s": 0.17456205463409424, "latency_s": 0.15970731616020203}
    simulated = replace(pair[0], **timed, measured=False, label="SIMULATED", active_power_w=3.26)
    results = [replace(one, idle_power_w=2.18) for one in (measured, simulated)]
    assert_golden("published_energy_log.txt", energy_log(results))
    assert energy_log([replace(measured, idle_power_w=None)]).startswith("power:unknown\n")
    assert "measured INVALID\n" in energy_log([replace(measured, idle_power_w=2.0, valid=False)])

"""`pi-dynn report`: the published table comes out of traces again, and unlike things are not compared."""

import json
from dataclasses import replace
from math import hypot

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.published.make_runs import ROWS, faults, published_run
from pi_dynn.cli.main import main
from pi_dynn.cli.status import ExitStatus
from pi_dynn.energy.compare import compare_results, energy_differences
from pi_dynn.energy.records import EnergyDifference
from pi_dynn.energy.results import energy_results
from pi_dynn.energy.runs import save_run
from pi_dynn.report.runs import csv_rows, difference_table
from pi_dynn.report.saved import SavedRuns
from tests.golden import assert_golden

WRONG_IN_PRINT = ("Jetson Orin Nano", "NaSC", "dynn")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A saved run for each published row, in order."""
    folder = tmp_path_factory.mktemp("published")
    paths = []
    for number, row in enumerate(ROWS):
        measurement = published_run(row)
        paths.append(folder / f"{number:02d}.json")
        save_run(paths[-1], measurement, energy_results(*measurement))
    return paths


@pytest.fixture
def report(capsys):
    """Run `pi-dynn report`; returns the status, stdout and stderr."""

    def run(*arguments) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ending:
            main(["report", *map(str, arguments)])
        return ending.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("log", [1, 2, 3])
def test_the_published_tables_are_made_again(report, runs, log):
    status, out, _ = report(*(path for path, row in zip(runs, ROWS, strict=True) if row["log"] == log), "--exits")
    assert status == ExitStatus.OK
    assert_golden(f"published_log{log}.txt", out.rstrip("\n"))


def test_what_is_wrong_in_print_is_listed():
    listed = faults()
    assert ("log 1, NaSC dynn, Jetson Orin Nano", "improve", "53.10 %", "53.86 %", "wrong") in listed
    assert ("log 2, UCM dynn", "name", "GFNet-dynn-12-192", "GFNet-dynn-12-384", "wrong") in listed
    assert ("log 2, RESISC45 distil-dynn", "parameters", "4.56 M", "4.66 M", "wrong") in listed
    assert ("log 1, NaSC distil-dynn, block 9", "exit rate", "31.32 %", "31.33 %", "cut off, not rounded") in listed
    assert not any("block 10" in where and what == "exit rate" for where, what, *_ in listed)  # 29.275 is 29.28
    assert sum(how.startswith("wrong") for *_, how in listed) == 8


def test_exit_tables_have_the_true_shares(report, runs):
    chosen = [path for path, row in zip(runs, ROWS, strict=True) if row["preset"] == "nasc-dynn"]
    lines = [json.loads(line) for line in report(chosen[0], "--json")[1].splitlines()]
    exits = {row["block_index"]: (row["share"], row["accuracy"]) for row in lines[0]["exits"]}
    assert exits == {1: (0.305, 1209 / 1220), 4: (0.48675, 1904 / 1947), 9: (0.2005, 757 / 802), 11: (0.00775, 25 / 31)}


def test_every_figure_is_the_published_one_but_the_one_printed_wrong(report, runs):
    _, out, _ = report(*runs, "--json")
    results = [entry for line in out.splitlines() if "difference" not in (entry := json.loads(line))]
    assert len(results) == len(ROWS) == 24 + 12 + 3
    for row, result in zip(ROWS, results, strict=True):
        assert 1e3 * result["latency_s"] == pytest.approx(row["latency_ms"], rel=1e-6)
        assert 1e3 * result["net_j"] == pytest.approx(row["energy_mj"], rel=1e-5)
        printed = row["printed"]["improve"]
        if (row["board"], row["dataset"], row["model"]) == WRONG_IN_PRINT:
            assert printed == "53.10"
            assert round(100 * result["improvement"], 2) == 53.86
        elif printed is not None:  # what is printed is cut, not rounded
            digits = len(printed.partition(".")[2])
            assert 100 * result["improvement"] == pytest.approx(float(printed), abs=1.1 * 10**-digits)
        assert result["parameters"] / 1e6 == pytest.approx(float(row["printed"]["parameters"]), abs=0.11)


def test_the_published_pair_of_a_pi_4():
    (row,) = [
        row for row in ROWS if (row["board"], row["dataset"], row["model"]) == ("Raspberry Pi 4B", "NaSC", "base")
    ]
    (result,) = energy_results(*published_run({**row, "energy_mj": 381.6 * (3.26 - 2.18)}))
    assert result.active_power_w == pytest.approx(3.26)
    assert result.idle_power_w == pytest.approx(2.18)
    assert round(1e3 * result.net_j, 1) == 412.1
    assert round(1e3 * result.gross_j) == 1244


def test_markdown_and_exits(report, runs):
    _, out, _ = report(*runs[:2], "--markdown", "--exits")
    assert out.startswith("| board | name |")
    assert "| exits of distil |" in out


def pair() -> list:
    return [energy_results(*published_run(row))[0] for row in ROWS[:2]]


@pytest.mark.parametrize(
    ("change", "why"),
    [({"scope": "CPU package"}, "scope"), ({"shunt_ohm": 0.01}, "shunt_ohm"), ({"label": "ESTIMATED"}, "label")],
)
def test_unlike_meters_are_not_compared(change, why):
    base, other = pair()
    *_, compared = compare_results([base, replace(other, **change)])
    assert compared.improvement is None
    assert any(f"is not compared with base: {why}" in note for note in compared.notes)


def test_other_boards_and_data_have_their_own_baseline():
    base, other = pair()
    assert compare_results([base, replace(other, dataset="AID")])[1].improvement is None
    assert compare_results([base, replace(other, board=replace(other.board, model="another"))])[1].improvement is None


def test_a_run_measured_in_turns_with_its_baseline_keeps_that():
    base, other = pair()
    in_turns = EnergyDifference("distil", "base", -0.1, (-0.2, -0.05), "less", label="SIMULATED")
    kept = replace(other, improvement=0.25, in_turns=in_turns)
    assert compare_results([base, kept])[1].improvement == 0.25
    assert energy_differences([base, kept]) == [in_turns]


def test_an_invalid_run_is_status_4(report, tmp_path):
    measurement = published_run(ROWS[0])
    broken = measurement._replace(trace=replace(measurement.trace, error="unplugged"))
    save_run(tmp_path / "run.json", broken, energy_results(*broken))
    status, out, _ = report(tmp_path / "run.json")
    assert status == ExitStatus.MEASUREMENT_INVALID
    assert "INVALID base: sampling ended early: unplugged" in out


def test_a_file_that_is_no_run(report, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    status, _, err = report(tmp_path / "run.json")
    assert status == ExitStatus.ERROR
    assert "holds no saved run: give a file of" in err


def test_told_to_everything_is_held_against_the_first_run():
    base, other = pair()
    elsewhere = replace(other, dataset="AID", board=replace(other.board, model="another"), scope="CPU package")
    assert energy_differences([base, elsewhere]) == []
    (difference,) = energy_differences([base, elsewhere], across=True)
    assert difference.net_j == pytest.approx(other.net_j - base.net_j)
    assert (difference.verdict, difference.net_ci95_j) == ("no verdict", None)
    assert "scope is 'CPU package'" in difference.obstacle
    assert (
        compare_results([base, elsewhere], across=True)[1].improvement == compare_results([base, other])[1].improvement
    )


def measured_pair(base_j: float, change_j: float, errors_j: tuple[float, float], trials: int = 5) -> list:
    """Two results as of `trials` trials with these standard errors, of one meter."""
    pairs = zip(pair(), (base_j, base_j + change_j), errors_j, strict=True)
    return [
        replace(one, net_j=net_j, net_se_j=se_j, net_ci95_j=(0.0, 1.0), trials=trials) for one, net_j, se_j in pairs
    ]


@given(
    base=st.floats(0.1, 1.0),
    change=st.floats(-0.05, 0.05),
    errors=st.tuples(st.floats(1e-4, 0.02), st.floats(1e-4, 0.02)),
)
def test_the_verdict_follows_the_interval_of_the_difference(base, change, errors):
    (difference,) = energy_differences(measured_pair(base, change, errors))
    low, high = difference.net_ci95_j
    assert (low + high) / 2 == pytest.approx(change, abs=1e-9)
    assert 1.9 * hypot(*errors) < (high - low) / 2 < 2.8 * hypot(*errors)  # Student's t with 4 to 8 degrees
    expected = "less" if high < 0 else "more" if low > 0 else "no difference shown"
    assert difference.verdict == expected
    assert (difference.label, difference.valid, difference.obstacle) == ("SIMULATED", True, None)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"valid": False, "invalid_reasons": ["throttled"]}, "distil is invalid"),
        ({"net_ci95_j": None}, "it takes 3 trials"),
    ],
)
def test_no_verdict_without_two_valid_runs_and_their_intervals(change, why):
    base, other = measured_pair(0.4, -0.2, (1e-3, 1e-3))
    (difference,) = energy_differences([base, replace(other, **change)])
    assert difference.verdict == "no verdict"
    assert why in difference.obstacle
    assert difference.valid == ("valid" not in change)


def test_rows_of_differences_carry_label_and_validity(runs):
    base, other = measured_pair(0.4, -0.2, (1e-3, 1e-3))
    differences = energy_differences([base, replace(other, valid=False)])
    text = difference_table(differences)
    assert "SIMULATED INVALID" in text and "Jetson AGX Orin  NaSC" in text
    assert "no verdict (distil is invalid)" in text
    row = list(csv_rows(SavedRuns(energy=[base, other]), energy_differences([base, other])))[-1]
    assert (row["label"], row["valid"], row["verdict"]) == ("SIMULATED", True, "less")
    assert row["net_ci95_low_j"] < row["net_j"] < row["net_ci95_high_j"] < 0

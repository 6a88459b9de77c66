"""Saved runs, and errors for other files."""

import json

import pytest

from pi_dynn.energy.records import EnergyResult
from pi_dynn.energy.results import energy_results
from pi_dynn.energy.runs import is_run, load_run, replay_run, save_run
from pi_dynn.errors import InputError
from pi_dynn.power import load_trace
from tests.energy.simulated import Bench


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.json"
    measurement = Bench().measure()
    save_run(path, measurement, energy_results(*measurement))
    return path


def test_a_saved_run_gives_its_figures_again(saved):
    _, results = replay_run(saved)
    assert results == [EnergyResult.from_dict(one) for one in json.loads(saved.read_text())["results"]]


def test_its_trace_can_be_replayed_by_any_meter(saved):
    trace = load_trace(saved)
    assert len(trace.t_ns) > 1000
    assert is_run(saved)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_run(tmp_path / "none.json")
    assert not is_run(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '{"format": "pi_dynn.energy/1"}'])
def test_a_file_that_is_no_run(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(InputError, match="run.json"):
        load_run(path)


def test_a_damaged_board_is_named(saved, tmp_path):
    document = json.loads(saved.read_text())
    document["recording"]["board"] = {"model": "Pi"}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="damaged"):
        load_run(path)


def test_spans_are_joined_by_their_place_and_not_by_their_text(saved, tmp_path):
    document, path = json.loads(saved.read_text()), tmp_path / "run.json"
    for span in document["trace"]["spans"]:
        span[2] = "another label"
    path.write_text(json.dumps(document))
    assert replay_run(path)[1][0].net_j == replay_run(saved)[1][0].net_j
    document["recording"]["trials"][0]["span"] = 10**6
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="names spans that its trace does not have"):
        load_run(path)

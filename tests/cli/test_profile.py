"""`profile`: the table, JSON, a trace, and a latency model that budgets use."""

import json

import pytest

from pi_dynn.latency.records import LatencyCheck, LatencyModel, Profile


@pytest.fixture
def arguments(tiny_bundle_path, photographs):
    return ("profile", photographs, "--bundle", tiny_bundle_path, "--threads", 1, "--n", 6)


def test_table_json_and_trace(pi_dynn, arguments, tmp_path):
    trace = tmp_path / "trace.json"
    outcome = pi_dynn(*arguments, "--no-exit", "--no-roofline", "--trace", trace)
    assert outcome.status == 0 and "block 11 MLP" in outcome.out and "time with the marks" in outcome.err
    assert json.loads(trace.read_text())["traceEvents"]
    outcome = pi_dynn(*arguments, "--threshold", "0", "--json")
    result = Profile.from_dict(json.loads(outcome.out))
    assert result.exit_counts == [6, 0, 0, 0] and result.roofline is not None


def test_fit_is_used_by_calibrate(pi_dynn, arguments, tiny_bundle_path, photographs, tmp_path):
    outcome = pi_dynn(*arguments, "--fit", "--json")
    model, check = (json.loads(line) for line in outcome.out.splitlines())
    model = LatencyModel.from_dict(model["model"])
    assert LatencyCheck.from_dict(check["check"]).measured_s > 0
    data = tmp_path / "data"
    for label in "ab":
        (data / label).mkdir(parents=True)
        for path in sorted(photographs.iterdir()):
            (data / label / path.name).write_bytes(path.read_bytes())
    line = ("calibrate", data, "--bundle", tiny_bundle_path, "--threads", 1, "--rule", "budget", "--json")
    outcome = pi_dynn(*line, "--budget-ms", 1e4)
    assert outcome.status == 0, outcome.err
    record = json.loads(outcome.out)
    assert record["cost_unit"] == "s" and record["costs"] == pytest.approx(model.predict_s([1, 4, 8, 11]))
    assert "give --costs" in pi_dynn(*line, "--budget-mj", 5).err


def test_bad_settings(pi_dynn, arguments):
    assert pi_dynn(*arguments, "--threshold", "0.1", "--no-exit").status == 2
    outcome = pi_dynn(*arguments, "--thresholds", "0.1")
    assert outcome.status == 1 and "3 exits" in outcome.err

"""Records survive a file whole, and are refused where they do not belong."""

import json
from dataclasses import replace

import pytest

from pi_dynn.calibrate.records import (
    CalibrationRecord,
    ExitReliability,
    OperatingPoint,
    Promise,
    ReliabilityBin,
    RuleResult,
    best_within,
    check_bundle,
    find_records,
    load_record,
    save_record,
)
from pi_dynn.errors import CalibrationError

CURVE = [
    OperatingPoint([0.5], 0.80, 0.010, [0.9, 0.1], [0.8, 0.8]),
    OperatingPoint([0.9], 0.95, 0.030, [0.4, 0.6], [0.99, 0.92]),
]
RECORD = CalibrationRecord(
    rule="risk",
    score="gate",
    thresholds=[0.9],
    exits=[4, 11],
    exit_rates=[0.4, 0.6],
    accuracy=0.95,
    full_depth_accuracy=0.96,
    mean_cost=0.030,
    costs=[0.01, 0.05],
    cost_unit="s",
    images=5000,
    bundle="ab" * 32,
    dataset="ucm",
    split="cd" * 32,
    part="calibrate",
    settings={"epsilon": 0.01},
    curve=CURVE,
    temperatures=[1.1, 1.3],
    promise=Promise(0.01, 0.1, "harm", True, 0.008),
)


@pytest.mark.parametrize("record", [RECORD, replace(RECORD, promise=None, temperatures=None, split=None)])
def test_a_file_gives_the_record_back(record, tmp_path):
    save_record(tmp_path / "record.json", record)
    assert load_record(tmp_path / "record.json") == record
    assert json.loads((tmp_path / "record.json").read_text())["schema"] == "pi_dynn.calibration/1"


def test_other_records_turn_into_plain_data_and_back():
    rule = RuleResult("budget", "142 M", CURVE[0], "s", 0.01)
    assert RuleResult.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    bins = [ReliabilityBin(0.5, 0.4, 3)]
    row = ExitReliability(4, 1.2, 0.1, 0.05, bins, bins)
    assert ExitReliability.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_a_record_for_another_bundle():
    check_bundle(RECORD, "ab" * 32, "record.json")
    with pytest.raises(CalibrationError, match="record.json: was made for the bundle abababababab, and this one is ef"):
        check_bundle(RECORD, "ef" * 32, "record.json")


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '{"schema": "pi_dynn.calibration/1"}', "null"])
def test_files_that_are_no_record(text, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match="record.json: .*calibrat") as caught:
        load_record(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CalibrationError, match="none.json: cannot be read"):
        load_record(tmp_path / "none.json")


def test_counts_that_do_not_fit(tmp_path):
    save_record(tmp_path / "record.json", replace(RECORD, thresholds=[0.1, 0.2]))
    with pytest.raises(CalibrationError, match="do not fit together"):
        load_record(tmp_path / "record.json")


def test_the_records_of_a_bundle_in_a_folder(tmp_path):
    save_record(tmp_path / "a.json", RECORD)
    save_record(tmp_path / "b.json", replace(RECORD, bundle="ef" * 32))
    (tmp_path / "split.json").write_text('{"parts": {}}')
    assert find_records(tmp_path, "ab" * 32) == [RECORD]
    assert find_records(tmp_path / "a.json", "ab" * 32) == [RECORD]
    with pytest.raises(CalibrationError, match="no record for the bundle 000000000000"):
        find_records(tmp_path, "0" * 64)


def test_the_most_accurate_point_within_a_budget():
    joules = replace(RECORD, cost_unit="J")
    better = replace(RECORD, curve=[replace(CURVE[0], accuracy=0.9, mean_cost=0.02)])
    assert best_within([RECORD, joules], 0.05, "s") == (RECORD, CURVE[1])
    assert best_within([RECORD, better], 0.025, "s") == (better, better.curve[0])
    with pytest.raises(CalibrationError, match="a budget of 0.001 s is below the least on record, 0.01"):
        best_within([RECORD], 0.001, "s")
    with pytest.raises(CalibrationError, match="has its costs in 'J'"):
        best_within([RECORD], 1.0, "J")

"""From collected outputs to a record, without a network."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pi_dynn.calibrate.outcomes import operating_point
from pi_dynn.calibrate.rules import RuleSettings
from pi_dynn.errors import CalibrationError
from pi_dynn.evaluate.outputs import ExitOutputs
from pi_dynn.evaluate.thresholds import CalibrationSource, calibrate, exit_outcomes, reliability, rescored
from tests.calibrate.synthetic import synthetic_logits

LOGITS, LABELS = synthetic_logits(600, 4)
OUTPUTS = ExitOutputs(LOGITS, np.random.default_rng(0).random((3, 600)), LABELS, [])
MANIFEST = SimpleNamespace(labels=list("abcd"), blocks=[2, 5, 11], macs=[10, 20, 40])
SOURCE = CalibrationSource("ucm", "cd" * 32, "calibrate", [10.0, 20.0, 40.0], "macs")


def test_the_record_holds_what_the_rule_chose():
    settings = RuleSettings(budget=25.0)
    record, choice = calibrate(OUTPUTS, MANIFEST, "ab" * 32, SOURCE, "budget", settings, "max-probability")
    point = operating_point(exit_outcomes(OUTPUTS, "max-probability", SOURCE.costs), record.thresholds)
    assert (record.accuracy, record.mean_cost, record.exit_rates) == (point.accuracy, point.mean_cost, point.exit_rates)
    assert record.mean_cost <= 25.0 and record.curve == choice.curve and record.exits == [2, 5, 11]
    assert record.settings["budget"] == 25.0 and record.bundle == "ab" * 32


def test_a_record_made_twice_is_the_same():
    records = [calibrate(OUTPUTS, MANIFEST, "ab", SOURCE, "msdnet", RuleSettings())[0] for _ in range(2)]
    assert records[0] == records[1]


def test_temperatures_are_the_records():
    record, _ = calibrate(OUTPUTS, MANIFEST, "ab", SOURCE, "sweep", RuleSettings())
    rows = reliability(OUTPUTS, record)
    assert [row.temperature for row in rows] == record.temperatures
    assert sum(row.error_after for row in rows) < sum(row.error_before for row in rows)


def test_outputs_take_the_records_score():
    record, _ = calibrate(OUTPUTS, MANIFEST, "ab", SOURCE, "sweep", RuleSettings(), "margin")
    assert (rescored(OUTPUTS, record).scores == exit_outcomes(OUTPUTS, "margin", SOURCE.costs).scores).all()


def test_a_record_of_the_inverted_score_is_refused_in_one_line():
    record, _ = calibrate(OUTPUTS, MANIFEST, "ab", SOURCE, "percentile", RuleSettings())
    with pytest.raises(CalibrationError, match="'entropy-inverted' of a record made by pi_dynn 0.1 .* calibrate again"):
        rescored(OUTPUTS, replace(record, score="entropy-inverted"))


def test_nan_and_labels_unfit_for_calibration():
    broken = ExitOutputs(LOGITS, np.full((3, 600), np.nan), LABELS, [])
    with pytest.raises(CalibrationError, match="600 of 600 scores of exit 1 are NaN"):
        calibrate(broken, MANIFEST, "ab", SOURCE, "sweep", RuleSettings())
    same = ExitOutputs(LOGITS, OUTPUTS.scores, np.zeros(600, dtype=int), [])
    with pytest.raises(CalibrationError, match="of class 0"):
        calibrate(same, MANIFEST, "ab", SOURCE, "sweep", RuleSettings())

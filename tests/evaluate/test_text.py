"""The text and figures of `calibrate`."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from pi_dynn.calibrate.records import (
    CalibrationRecord,
    ExitReliability,
    OperatingPoint,
    Promise,
    ReliabilityBin,
    RuleResult,
    StaticNetwork,
)
from pi_dynn.evaluate.text import (
    comparison_table,
    drift_line,
    empty_exit_notes,
    move_line,
    points_table,
    recommended,
    record_text,
    reliability_table,
)
from pi_dynn.text import cost_text, threshold_text

POINT = OperatingPoint([0.8, 2.0], 0.95, 1.5e8, [0.5, 0.0, 0.5], [0.99, None, 0.91], {"threshold": 0.8})
CHEAP = OperatingPoint([0.5, 0.5], 0.90, 1.0e8, [0.8, 0.1, 0.1], [0.92, 0.9, 0.8], {"threshold": 0.5})
RECORD = CalibrationRecord(
    rule="sweep",
    score="gate",
    thresholds=[0.8, 2.0],
    exits=[2, 5, 11],
    exit_rates=[0.5, 0.0, 0.5],
    accuracy=0.95,
    full_depth_accuracy=0.96,
    mean_cost=1.5e8,
    costs=[0.6e8, 1.2e8, 2.4e8],
    cost_unit="macs",
    images=252,
    bundle="ab" * 32,
    dataset="ucm",
    split=None,
    part="calibrate",
    settings={},
    curve=[CHEAP, POINT],
)
BINS = [ReliabilityBin(0.4, 0.5, 10), ReliabilityBin(0.9, 0.8, 10)]
RELIABILITY = [ExitReliability(block, 1.25, 0.10, 0.02, BINS, BINS) for block in (2, 5, 11)]
RESULTS = [RuleResult("sweep", "0.80", POINT, "macs", 0.0), RuleResult("budget", "cost of 0.80", CHEAP, "macs", 0.0125)]


def test_units_and_thresholds():
    assert [cost_text(value, unit) for value, unit in ((1.5e8, "macs"), (0.0123, "s"), (0.15, "J"))] == [
        "150.0 M",
        "12.3 ms",
        "150 mJ",
    ]
    assert [threshold_text(value) for value in (0.8, 1.0, 2.0)] == ["0.8000", "1.0000", "disabled"]


def test_the_published_lines_of_a_sweep():
    lines = points_table([CHEAP, POINT], [2, 5, 11], "macs").splitlines()
    assert lines[0].split() == ["threshold", "block", "2", "block", "5", "block", "11", "accuracy", "mean", "cost"]
    assert " ".join(lines[2].split()) == "0.8 50.0 % / 99.0 % 0.0 % / - 50.0 % / 91.0 % 95.00 % 150.0 M"
    assert points_table([POINT], [2, 5, 11], "macs", markdown=True).startswith("| threshold | block 2 |")


def test_a_record_in_text():
    lines = record_text(RECORD, POINT, before=CHEAP).splitlines()
    assert lines[0] == "ucm, part calibrate: 252 images  (rule sweep, score gate)"
    assert lines[1].split() == ["exit", "threshold", "exit", "rate", "exit", "acc", "cost"]
    assert lines[3].split() == ["block", "5", "disabled", "0.00", "%", "-", "120.0", "M"]
    assert lines[4].split()[:3] == ["block", "11", "-"]
    assert lines[5].startswith("before pruning: accuracy 90.00 %")
    assert lines[6] == ("accuracy 95.00 % of 96.00 % at full depth  mean cost 150.0 M of 240.0 M  saved 37.5 %")


@pytest.mark.parametrize(("corrected", "words"), [(True, "for any distribution"), (False, "in the normal limit")])
def test_a_promise_in_text(corrected, words):
    promised = replace(RECORD, promise=Promise(0.01, 0.1, "harm", corrected, 0.0083))
    last = record_text(promised, POINT).splitlines()[-1]
    assert last.startswith("with probability 90 % at most 1 points are lost on new data (harm")
    assert words in last and "bound reached 0.830 points" in last


def test_an_exit_without_images_is_noted():
    assert empty_exit_notes(RECORD) == ["none of 252 images left at the exit after block 5: its accuracy is not known"]


def test_comparison_and_reliability_tables():
    lines = comparison_table(RESULTS).splitlines()
    assert lines[1].split() == ["sweep", "0.80", "95.00", "%", "150.0", "M", "+0.00", "50", "0", "50"]
    assert reliability_table(RELIABILITY).splitlines()[1].split() == ["block", "2", "1.250", "10.00", "%", "2.00", "%"]


def test_settings_that_lead_to_the_same_thresholds_share_a_line():
    full = replace(
        RESULTS[0], rule="full depth", setting="", point=replace(POINT, accuracy=0.94, thresholds=[2.0, 2.0])
    )
    dear = replace(RESULTS[0], setting="0.90", point=replace(POINT, mean_cost=200e6, thresholds=[0.9, 0.9]))
    wrong = replace(
        RESULTS[0], setting="0.10", point=replace(POINT, accuracy=0.5, mean_cost=90e6, thresholds=[0.1, 0.1])
    )
    same = replace(RESULTS[0], rule="budget", setting="cost of 0.80")
    results = [full, RESULTS[0], same, replace(same, setting="cost of 0.85"), dear, wrong]
    lines = [" ".join(line.split()) for line in comparison_table(results).splitlines()]
    assert len(lines) == 1 + 5
    assert lines[2].startswith("* sweep 0.80 95.00 %")
    assert lines[3].startswith("budget cost of 0.80 .. 0.85 95.00 %")
    assert recommended([full]) is None
    promises = [replace(RESULTS[0], rule="risk", setting=f"{by} <= 1 points") for by in ("harm", "gap")]
    assert "harm <= 1 points .. gap <= 1 points" in comparison_table(promises)


def test_lines_while_classifying():
    drift = SimpleNamespace(images=200, shares=[0.1, 0.0, 0.9], expected=[0.5, 0.0, 0.5])
    line = drift_line(drift, [2, 5, 11])
    assert "the last 200 images" in line and "block 2: 10 % (50 %)" in line and "\n" not in line
    assert move_line(CHEAP, "macs") == (
        "thresholds moved to a mean cost of 100.0 M, with an accuracy of 90.0 % on record"
    )


def test_figures_show_what_they_should(tmp_path):
    pytest.importorskip("matplotlib")
    from pi_dynn.evaluate.plots import (
        leaving_figure,
        reliability_figure,
        sweep_figure,
        trade_off_figure,
    )
    from pi_dynn.figures import save_figure

    static = [StaticNetwork("gfnet_small", 0.93, 1.2e8)]
    (axes,) = trade_off_figure(RESULTS, POINT, "macs", static).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["chosen"] == [[150.0, 95.0]] and lines["static networks"] == [[120.0, 93.0]]
    assert {"sweep", "budget"} <= set(lines)
    (axes,) = leaving_figure(RECORD, POINT).axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([49.5, 0, 45.5, 0.5, 0, 4.5])
    assert [text.get_text() for text in axes.texts] == ["50 %", "0 %", "50 %"]
    assert len(reliability_figure(RELIABILITY).axes) == 3
    figure = sweep_figure([CHEAP, POINT], "macs")
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[0.5, 90.0], [0.8, 95.0]]
    paths = save_figure(figure, tmp_path, "sweep")
    assert paths[0].read_text().startswith("<?xml") and paths[1].read_bytes()[:4] == b"\x89PNG"


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    import sys

    from pi_dynn.errors import InputError
    from pi_dynn.evaluate.plots import sweep_figure

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install .*\[plots\]'"):
        sweep_figure([POINT], "macs")

"""Numbers and tables as people read them."""

from dataclasses import replace
from types import SimpleNamespace

import model_card

from pi_dynn.calibrate.records import ExitRow
from pi_dynn.classify.records import ClassifySummary
from pi_dynn.classify.text import csv_row, label_width, prediction_line, prediction_object, summary_line
from pi_dynn.errors import InputError
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.evaluate.text import evaluation_text
from pi_dynn.latency.records import LatencyRow
from pi_dynn.latency.text import latency_table
from pi_dynn.records import Prediction
from pi_dynn.text import folded, milliseconds, percent, significant, table

ANSWER = Prediction("beach", 3, 0.9876, 1, 4, 0.91, 0.00312, [("beach", 0.9876), ("river", 0.01)])
SUMMARY = ClassifySummary(4, 1, 2.0, 2.0, 0.0051, [1, 3], [4, 11], "onednn", 4, "abc", False)
EVALUATION = Evaluation(
    dataset="ucm",
    images=4,
    failed=0,
    acc1=0.75,
    acc5=1.0,
    loss=0.5,
    full_depth_acc1=1.0,
    mean_macs=175e6,
    full_depth_macs=200_000_000,
    exits=[ExitRow(0, 4, 1, 0.25, 1.0, 100_000_000), ExitRow(1, 11, 3, 0.75, 2 / 3, 200_000_000)],
    thresholds=[0.9],
    engine="x86",
    precision="int8",
    bundle="abc",
)


def test_units():
    assert [milliseconds(s) for s in (0.38160, 0.0123, 0.00123)] == ["382 ms", "12.3 ms", "1.23 ms"]
    assert significant(12345.6) == "12,346"
    assert [percent(0.12345, 2), percent(None)] == ["12.35 %", "-"]


def test_tables():
    assert table(("a", "b"), [("x", "1"), ("yy", "22")]) == "a    b\nx    1\nyy  22"
    assert table(("a", "b"), [("x", "1")], markdown=True) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_one_answer(monkeypatch):
    assert prediction_line("p.jpg", ANSWER, 4) == (
        "beach             98.8 %  exit 2 of 4 (block 4)    3.12 ms  p.jpg\n  river            1.0 %"
    )
    assert prediction_line("p.jpg", replace(ANSWER, accepted=False), 4).splitlines()[1:] == [
        "  beach           98.8 %",
        "  river            1.0 %",
    ]
    assert prediction_line("p.jpg", replace(ANSWER, label="golfcourse", accepted=False, top=[]), 4) == (
        "none of these        -  exit 2 of 4 (block 4)    3.12 ms  p.jpg  (nearest: golf course)"
    )
    monkeypatch.setenv("COLUMNS", "80")
    narrow = prediction_line("p.jpg", replace(ANSWER, top=[]), 4)
    assert narrow == "beach           98.8 %  exit 2 of 4   3.12 ms  p.jpg"
    none = prediction_line("p.jpg", replace(ANSWER, accepted=False, top=[]), 4)
    assert none.splitlines()[1] == "  (nearest: beach)"
    assert label_width(["a", "denseresidential"]) == len("dense residential")
    assert label_width(["x" * 100]) == 30
    assert prediction_object("p.jpg", ANSWER)["top"][1] == ("river", 0.01)
    assert csv_row("p.jpg", InputError("bro\nken"))["error"] == "bro ken"
    assert csv_row("p.jpg", ANSWER)["exit_index"] == 1


def test_summary():
    assert summary_line(SUMMARY) == (
        "4 images, 1 failed: 2.00 a second with decoding, 5.10 ms each in the network (onednn, 4 threads)\n"
        "left after block 4 25 %, block 11 75 %"
    )
    nothing = ClassifySummary.from_dict(SUMMARY.to_dict() | {"images": 0, "mean_latency_s": None})
    assert summary_line(nothing) == "0 images classified, 1 failed"


def test_evaluation():
    assert evaluation_text(EVALUATION) == (
        "ucm: 4 images  (int8, x86)\n"
        "exit      images  exit rate  exit acc  multiply-adds\n"
        "block 4        1    25.00 %  100.00 %        100.0 M\n"
        "block 11       3    75.00 %   66.67 %        200.0 M\n"
        "* acc@1 75.000  acc@5 100.000  loss 0.500\n"
        "full depth acc@1 100.000  exits cost 25.000 points\n"
        "mean multiply-adds 175.0 M of 200.0 M  saved 12.5 %"
    )
    assert Evaluation.from_dict(EVALUATION.to_dict()) == EVALUATION


def test_latencies():
    rows = [LatencyRow("a", "none", 1, 5, 0.02, 0.03, 0.04, (0.019, 0.021), 1.0)]
    assert latency_table(rows).splitlines()[1].split() == [
        *("a", "20.0", "ms", "19.0", "ms", "..", "21.0", "ms", "30.0", "ms", "40.0", "ms", "1.00x", "-")
    ]
    assert latency_table(rows, markdown=True).splitlines()[2].startswith("| a | 20.0 ms | 19.0 ms .. 21.0 ms |")


def test_model_card_tables():
    assert "| int8 | 75.00 % | 100.00 % | 100.00 % |" in model_card.accuracy_rows({"int8": EVALUATION})
    assert "| block 11 | 3 | 75.0 % | 66.7 % | 200.0 M |" in model_card.exit_rows(EVALUATION)
    stages = [SimpleNamespace(name=name, image_size=64, lr=1e-3, final_lr=1e-5, batch_size=128) for name in "ab"]
    log = [{"stage": "a", "step": 9}, {"stage": "a", "step": 10, "cpu_s": 5400.0, "probe_ucm_calibrate": 0.8}]
    rows = model_card.stage_rows(stages, log).splitlines()
    assert len(rows) == 3 and rows[2] == "| a | 64 px | 1,280 | 128 | 0.001 to 1e-05 | 1.5 | 80.0 % |"
    assert "| block 2 | 55.00 % |" in model_card.depth_rows({2: 0.55})
    assert "| 3 | 100.00 % | 75.00 % | -25.00 |" in model_card.seed_rows({3: EVALUATION})


def test_a_table_wider_than_the_terminal_goes_on_below(monkeypatch):
    monkeypatch.setenv("COLUMNS", "11")
    assert table(("a", "bb", "cc", "dd"), [("x", "1", "2", "3")]) == "a  bb  cc\nx   1   2\n\na  dd\nx   3"
    monkeypatch.setenv("COLUMNS", "3")  # a column stays whole
    assert table(("name", "value"), [("x", "1")]) == "name  value\nx         1"


def test_long_lines_are_broken_between_words(monkeypatch):
    text = "a hash 0123456789abcdef\n\n  a line of many words"
    assert folded(text) == text  # not on a terminal
    monkeypatch.setenv("COLUMNS", "12")
    assert folded(text) == "a hash\n  0123456789abcdef\n\n  a line of\n    many\n    words"

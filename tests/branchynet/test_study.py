"""The study of entropy exits in tables and plots."""

import pytest
from PIL import Image
from study import points_table, save_plots

from pi_dynn.calibrate.records import OperatingPoint


def points(setting):
    return [
        OperatingPoint([0.9, 0.8], accuracy, latency_s, [0.5, 0.25, 0.25], [0.9, None, 0.7], {setting: value})
        for value, accuracy, latency_s in [(0.0, 0.8, 0.012), (0.5, 0.75, 0.008), (1.0, 0.6, 0.004)]
    ]


def test_table_has_a_row_per_point_and_a_column_per_exit():
    header, first, *rest = points_table(points("cutoff"), "cutoff").splitlines()
    assert header.split() == ["cutoff", "accuracy", "latency", "exit", "1", "exit", "2", "exit", "3"]
    assert first.split() == ["0.000", "80.0", "%", "12.0", "ms", "50.0", "%", "25.0", "%", "25.0", "%"]
    assert len(rest) == 2
    assert points_table(points("cutoff"), "cutoff", markdown=True).startswith("| cutoff | accuracy |")


def test_what_no_point_reaches_is_said():
    *_, last = points_table(points("desired"), "desired", unreached=[2.0]).splitlines()
    assert last.split() == ["2.000", "not", "reached"]
    header, *rows = points_table([], "desired", unreached=[0.5, 0.9]).splitlines()
    assert header.split() == ["desired", "accuracy", "latency"]
    assert [row.split() for row in rows] == [["0.500", "not", "reached"], ["0.900", "not", "reached"]]


def test_plots_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    paths = tmp_path / "cutoffs.png", tmp_path / "desired.png"
    save_plots(points("cutoff"), points("desired"), *paths)
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.getextrema()[0] != (255, 255)  # something is drawn

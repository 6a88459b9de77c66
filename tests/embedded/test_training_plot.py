"""The curves of a log of pretrain.py."""

import pytest
from training_plot import LOSSES, save_training_curves, training_figure

LOG = [
    {"stage": "small", "step": 10, "features": 2.0, "labels": 4.0},
    {"stage": "small", "step": 20, "features": 1.0, "labels": 3.0},
    {"stage": "small", "step": 20, "probe_ucm_calibrate": 0.5},
    {"stage": "large", "step": 10, "features": 0.5, "task": 1.0},
]


def test_stages_follow_each_other_by_the_views_they_saw(tmp_path):
    pytest.importorskip("matplotlib")
    figure = training_figure(LOG, {"small": 100, "large": 200})
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines[LOSSES["features"]] == [[1, 2], [2, 1]] and lines[LOSSES["labels"]] == [[1, 4], [2, 3]]
    assert lines[LOSSES["task"]] == [[4, 1]]  # after the two thousand of the first stage
    assert [text.get_text().strip() for text in axes.texts] == ["small: probe 50.0 %", "large"]
    save_training_curves(LOG, {"small": 100, "large": 200}, tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text().startswith("<?xml")

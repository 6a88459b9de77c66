"""The curves of a log of pretrain.py."""

import pytest
from training_plot import LOSSES, save_training_curves, training_figure

LOG = [
    {"stage": "small", "step": 10, "features": 2.0, "labels": 4.0},
    {"stage": "small", "step": 20, "features": 1.0, "labels": 3.0},
    {"stage": "small", "step": 20, "probe_ucm_calibrate": 0.5},
    {"stage": "large", "step": 10, "features": 0.5, "task": 1.0},
]


def test_every_stage_has_a_panel_by_the_views_it_saw(tmp_path):
    pytest.importorskip("matplotlib")
    figure = training_figure(LOG, {"small": 100, "large": 200})
    small, large = ({line.get_label(): line.get_xydata().tolist() for line in axes.lines} for axes in figure.axes)
    assert small == {LOSSES["features"]: [[1, 2], [2, 1]], LOSSES["labels"]: [[1, 4], [2, 3]]}
    assert large == {LOSSES["features"]: [[2, 0.5]], LOSSES["task"]: [[2, 1]]}
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["small: probe 50.0 %", "large"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(LOSSES.values())
    save_training_curves(LOG, {"small": 100, "large": 200}, tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text().startswith("<?xml")

"""The curves of a training log."""

import pytest
from training_plot import save_training_curves, training_figure

LOG = [
    {"phase": "small", "epoch": "1", "loss": "2.5", "acc_11": "0.4"},
    {"phase": "small", "epoch": "2", "loss": "2.0", "acc_11": "0.6"},
    {"phase": "large", "epoch": "3", "loss": "1.5", "acc_11": "0.8"},
]


def test_every_epoch_is_drawn_and_phases_are_kept_apart(tmp_path):
    pytest.importorskip("matplotlib")
    figure = training_figure(LOG, "acc_11")
    losses, rights = figure.axes
    assert rights.lines[0].get_ydata() == pytest.approx([40.0, 60.0, 80.0])
    assert rights.lines[0].get_xdata().tolist() == [1, 2, 5]  # of the second phase only the third epoch is known
    small, _, large, _ = (line.get_xydata().tolist() for line in losses.lines)
    assert (small, large) == ([[1, 2.5], [2, 2.0]], [[5, 1.5]])
    assert [line.get_xdata()[0] for line in losses.lines[1::2]] == [2.5, 5.5]
    assert [text.get_text() for text in losses.texts] == ["small", "large"]
    save_training_curves(LOG, "acc_11", tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text().startswith("<?xml")

"""The published networks by name: their figures agree with each other, and with the networks built from them."""

import pytest

from pi_dynn.data.layouts import layout_named
from pi_dynn.errors import UnknownModel
from pi_dynn.models.presets import preset_named, presets

# Totals printed in the logs themselves, digit by digit.
LOGGED = {
    "nasc-distil-dynn": 3_948_665,
    "patternnet-distil-dynn": 4_726_279,
    "cifar10-distil-dynn": 4_278_137,
    "cifar10-distil-dynn-both": 4_299_367,
    "ucm-distil": 4_558_314,
    "resisc45-distil-dynn": 4_663_168,
    "nasc-base": 14_890_378,
    "patternnet-dynn": 16_094_335,
}


def test_every_published_row_has_one():
    assert [len(list(filter(lambda name: name.startswith(data), presets()))) for data in ("nasc", "patternnet")] == [
        4,
        4,
    ]
    assert sum(len(preset.boards) for preset in presets().values()) == 24 + 12 + 1  # the third log repeats two rows


@pytest.mark.parametrize("name", LOGGED)
def test_parameters_are_those_of_the_logs(name):
    assert preset_named(name).parameters == LOGGED[name]


@pytest.mark.parametrize("name", presets())
def test_figures_agree(name):
    preset = preset_named(name)
    assert layout_named(preset.layout).num_classes == preset.classes
    assert preset.thresholds is None or len(preset.thresholds) in (0, 1, len(preset.exits))
    if preset.left:
        assert len(preset.left) == len(preset.exits) + 1
        assert sum(preset.left) == layout_named(preset.layout).held_out
    if preset.right is not None:
        assert sum(preset.right) / sum(preset.left) == pytest.approx(preset.accuracy, abs=6e-6)


def test_another_name_is_one_line_with_the_known_ones():
    with pytest.raises(UnknownModel, match="no preset is named 'aid-base': `pi-dynn models --presets` lists"):
        preset_named("aid-base")

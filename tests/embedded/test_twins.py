"""Tiles that overlap are told from those that do not, and a model card says so."""

import numpy as np
import pytest
import torch
from PIL import Image
from twins import HEADING, SIDE, Tiles, Twin, Twins, detail, find_twins, section, with_section

from pi_dynn.data.layouts import open_data


@pytest.fixture(scope="module")
def ground():
    """A photograph to cut tiles from: blurred noise."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((4 * SIDE, 4 * SIDE), Image.Resampling.BICUBIC)


def tile(ground, left, top):
    return ground.crop((left, top, left + SIDE, top + SIDE))


@pytest.mark.parametrize(("left", "top", "alike"), [(40, 0, True), (50, 40, True), (-60, 50, True), (200, 150, False)])
def test_tiles_agree_where_they_overlap(ground, left, top, alike):
    one, *others = detail([tile(ground, 150, 100), tile(ground, 150 + left, 100 + top)])
    correlation = float(Tiles(torch.stack(others)).correlations(one))
    assert (correlation > 0.95) if alike else (correlation < 0.5)


def test_flat_tiles_agree_with_nothing():
    water = detail([Image.new("RGB", (SIDE, SIDE), (0, 60, shade)) for shade in (120, 121)])
    assert float(Tiles(water[1:]).correlations(water[0])) == -1


@pytest.fixture
def parts(ground, tmp_path):
    """Test and training images of two classes: the first test image overlaps with the second training image."""
    places = {
        "test": {"sea": [(150, 100)], "land": [(0, 380)]},
        "train": {"sea": [(300, 300), (180, 120)], "land": [(0, 0), (380, 0)]},
    }
    for part, classes in places.items():
        for label, corners in classes.items():
            (tmp_path / part / label).mkdir(parents=True)
            for number, corner in enumerate(corners):
                tile(ground, *corner).save(tmp_path / part / label / f"{label}{number}.png")
    return tuple(open_data(tmp_path / part).data for part in ("test", "train"))


def test_twins_are_found_within_the_class(parts):
    test, train = parts
    twins = find_twins(test, train)
    assert [(test.paths[twin.test].stem, train.paths[twin.train].stem) for twin in twins.twins] == [("sea0", "sea1")]
    assert twins.images == 2 and twins.strangers == 4 and twins.highest < 0.5 and twins.hashed == 0


def test_a_card_shows_both_accuracies_once():
    right, deepest = np.array([True, False, True, True]), np.ones(4, dtype=bool)
    text = section(Twins([Twin(1, 7, 0.9)], 4, 0, 12, 0.3), right, deepest, ["sea1"])
    assert "| all | 4 | 75.00 % |" in text and "| with a twin | 1 | 0.00 % |" in text
    assert "| without | 3 | 100.00 % |" in text and "With a twin: sea1." in text
    card = with_section("# Card\n\n## None of these\n\nmore\n", text)
    assert card.index(HEADING) < card.index("## None of these") and card == with_section(card, text)

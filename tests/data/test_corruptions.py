"""Corruptions by name, made alike from the same seed, and worse with severity."""

import sys

import numpy as np
import pytest

from pi_dynn.data.corruptions import (
    ALEXNET_ERRORS,
    GROUPS,
    PUBLISHED,
    corrupt_pixels,
    corruptions_named,
)
from pi_dynn.errors import InputError

RAMP = np.linspace(30, 220, 64).astype(np.uint8)
PICTURE = np.stack([np.add.outer(RAMP // 2, RAMP // 2), np.tile(RAMP, (64, 1)), np.tile(RAMP[:, None], (1, 64))], -1)


def test_names_and_groups():
    assert len(PUBLISHED) == 15 and corruptions_named(["all"]) == list(PUBLISHED)
    assert corruptions_named(["noise", "fog", "shot_noise"]) == [*GROUPS["noise"], "fog"]
    assert corruptions_named(["extra"]) == list(GROUPS["extra"])
    with pytest.raises(InputError, match="no corruption 'rain': give all, noise, blur"):
        corruptions_named(["rain"])


def test_alexnet_is_the_published_one():
    # Table 1 of the paper gives whole percents: Gauss 89, shot 89, impulse 92, ..., JPEG 61.
    paper = [89, 89, 92, 82, 83, 79, 80, 87, 83, 82, 56, 85, 65, 72, 61]
    assert [round(100 * ALEXNET_ERRORS[name]) for name in PUBLISHED] == paper


@pytest.mark.parametrize("name", [name for group in GROUPS.values() for name in group])
def test_every_corruption_is_repeatable_and_worse_when_severe(name):
    pytest.importorskip("imagecorruptions", exc_type=ImportError)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    mild, severe = (corrupt_pixels(PICTURE, name, severity, seed=3) for severity in (1, 5))
    assert mild.shape == PICTURE.shape and mild.dtype == np.uint8
    assert (mild == corrupt_pixels(PICTURE, name, 1, seed=3)).all()
    away = [np.abs(one.astype(float) - PICTURE).mean() for one in (mild, severe)]
    assert 0.0 < away[0] < away[1]
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_too_small_and_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(InputError, match=r"pip install .*\[robustness\]'"):
        corrupt_pixels(PICTURE, "fog", 1, seed=0)


def test_small_pictures_are_refused():
    pytest.importorskip("imagecorruptions", exc_type=ImportError)
    with pytest.raises(InputError, match="at least 32 px, this network sees 28"):
        corrupt_pixels(PICTURE[:28, :28], "fog", 1, seed=0)

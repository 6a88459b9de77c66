"""From pictures to tensors."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pi_dynn.data.preprocess import Preprocess, turned_and_flipped
from pi_dynn.errors import InputError


def test_same_numbers_as_torchvision():
    """A square picture resized and normalised as the library of the field does it."""
    from pi_dynn.data.torchvision_ops import torchvision

    v2 = torchvision.transforms.v2
    picture = Image.effect_noise((96, 96), 80).convert("RGB")
    preprocess = Preprocess(size=32)
    theirs = v2.Compose(
        [
            v2.Resize(32, interpolation=v2.InterpolationMode.BICUBIC),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(preprocess.mean, preprocess.std),
        ]
    )(picture)
    torch.testing.assert_close(preprocess(picture), theirs, rtol=0, atol=0.02)


def test_centre_square_is_kept():
    picture = Image.new("RGB", (90, 30), "black")
    picture.paste("white", (30, 0, 60, 30))
    inner = np.s_[2:-2, 2:-2]  # the filter looks a little over the edge of the square
    assert Preprocess(size=16).pixels(picture)[inner].min() == 255
    assert Preprocess(size=16).pixels(picture.rotate(90, expand=True))[inner].min() == 255


def test_crop_keeps_the_middle():
    picture = Image.new("RGB", (100, 100), "black")
    picture.paste("white", (25, 25, 75, 75))
    assert Preprocess(size=10, crop=0.5).pixels(picture)[2:-2, 2:-2].min() == 255
    assert Preprocess(size=10).pixels(picture).min() == 0


def test_normalisation_in_numbers():
    preprocess = Preprocess(size=2, mean=(0.5, 0.0, 1.0), std=(0.5, 1.0, 2.0))
    x = preprocess.tensor(np.full((2, 2, 3), 255, np.uint8))
    torch.testing.assert_close(x[:, 0, 0], torch.tensor([1.0, 1.0, 0.0]))


def test_travels_as_json():
    preprocess = Preprocess(size=64, crop=0.875)
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 7)])
def test_tiny_and_extreme_shapes(size):
    x = Preprocess(size=32)(Image.new("RGB", size, "red"))
    assert x.shape == (3, 32, 32) and torch.isfinite(x).all()


def test_draft_decoding_barely_moves_the_input(tmp_path):
    path = tmp_path / "large.jpg"
    gradient = Image.linear_gradient("L").resize((1600, 1600))
    Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))).save(path, quality=95)
    preprocess = Preprocess(size=128)
    whole = preprocess(Image.open(path))
    torch.testing.assert_close(preprocess(path), whole, rtol=0, atol=0.06)


def test_pixels_are_taken_like_the_picture_they_make_and_ready_floats_as_they_are():
    picture = Image.effect_noise((50, 40), 80).convert("RGB")
    preprocess = Preprocess(size=32)
    array = preprocess.array(np.asarray(picture))
    assert array.shape == (3, 32, 32) and np.array_equal(array, preprocess.array(picture))
    for ready in (array, torch.from_numpy(array)):
        assert np.array_equal(preprocess.array(ready), array)
    for wrong in (np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), 7):
        with pytest.raises(InputError):
            preprocess.array(wrong)


def test_the_eight_views_are_the_turns_and_then_the_turns_mirrored():
    images = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    turns = [np.rot90(images, quarter, (2, 3)) for quarter in range(4)]
    expected = np.concatenate([*turns, *(turn[..., ::-1] for turn in turns)])
    assert np.array_equal(turned_and_flipped(torch.from_numpy(images)).numpy(), expected)

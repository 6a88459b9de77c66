import pytest
import torch
from torch.testing import assert_close

from pi_dynn.errors import CheckpointError
from pi_dynn.models.resize import resize_state_dict


@pytest.mark.parametrize("px", [32, 48, 64, 256])
def test_shapes_are_those_of_a_network_built_at_the_new_size(tiny, px):
    state = tiny(image_size=64, exits=[3]).state_dict()
    target = tiny(image_size=px, exits=[3])
    resized = resize_state_dict(state, 64, px)
    target.load_state_dict(resized, strict=True)
    for key, value in resized.items():
        if key != "pos_embed" and not key.endswith("complex_weight"):
            assert value is state[key]


@pytest.mark.parametrize("px", [32, 96, 224])
def test_pyramids_resize_in_every_stage(tiny_pyramid, px):
    state = tiny_pyramid(image_size=64, exits=[0]).state_dict()
    target = tiny_pyramid(image_size=px, exits=[0])
    target.load_state_dict(resize_state_dict(state, 64, px), strict=True)
    assert target(torch.zeros(1, 3, px, px)).isfinite().all()


def test_the_same_size_changes_nothing(tiny):
    state = tiny(image_size=64).state_dict()
    resized = resize_state_dict(state, 64, 64)
    assert resized.keys() == state.keys()
    assert all(torch.equal(resized[key], state[key]) for key in state)


def test_positions_keep_their_place_and_channel():
    """A ramp stays one, at half pixels because corners are not aligned (aligned ones are 0.1 to 0.5 off).

    torch's bicubic kernel (a = -0.75) bends a ramp by up to 3/64.
    """
    rows = torch.arange(8.0).view(8, 1).expand(8, 8)
    positions = torch.stack((rows, rows.T, torch.full((8, 8), 5.0)), dim=-1).view(1, 64, 3)
    resized = resize_state_dict({"pos_embed": positions}, 128, 256)["pos_embed"].view(16, 16, 3)
    inner = slice(4, 12)  # the borders are extrapolated
    ramp = (torch.arange(16.0) - 0.5) / 2
    assert_close(resized[inner, inner, 0], ramp[inner].view(8, 1).expand(8, 8), rtol=0, atol=0.05)
    assert_close(resized[inner, inner, 1], ramp[inner].expand(8, 8), rtol=0, atol=0.05)
    assert_close(resized[..., 2], torch.full((16, 16), 5.0), rtol=0, atol=1e-5)


def test_filters_keep_their_corners_channels_and_parts():
    """Corners are aligned, so the first and last frequencies keep their values in every channel and part."""
    weight = torch.randn(8, 5, 3, 2)
    resized = resize_state_dict({"blocks.0.filter.complex_weight": weight}, 128, 224)["blocks.0.filter.complex_weight"]
    assert resized.shape == (14, 8, 3, 2)
    for i, j in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert_close(resized[i, j], weight[i, j], rtol=0, atol=1e-5)


def test_half_precision_files_can_be_resized(tiny):
    state = {key: value.half() for key, value in tiny(image_size=64).state_dict().items()}
    tiny(image_size=32).load_state_dict(resize_state_dict(state, 64, 32), strict=True)


def test_distilled_filters_cannot_be_resized(tiny):
    state = tiny(image_size=64, distilled=True).state_dict()
    with pytest.raises(CheckpointError, match="distilled network cannot be resized from 64 to 128 px"):
        resize_state_dict(state, 64, 128)

"""What all training stands on: schedule, weight decay, views, decoding, and checkpoints read back."""

import pytest
import torch
from safetensors.torch import load_file

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.models import create_model
from pi_dynn.train.images import decode_all, turned_and_flipped
from pi_dynn.train.recipe import Recipe, decay_groups, lr_at


def test_schedule_warms_up_then_falls_to_its_floor():
    rates = [lr_at(step, 100, Recipe(epochs=1, lr=2.0, final_lr=0.2, warmup_steps=10)) for step in range(101)]
    assert rates[:10] == pytest.approx([(i + 1) / 5 for i in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(1.1)  # half way down
    assert rates[100] == pytest.approx(0.2)


def test_weight_decay_spares_biases_norms_and_positions():
    model = create_model("gfnet_12_192", num_classes=3, image_size=32, exits=[4])
    decayed, free = decay_groups(model, 0.05)
    shapes = {tuple(p.shape) for p in decayed["params"]}
    assert (768, 192) in shapes and model.blocks[0].filter.complex_weight.shape in shapes
    assert all(p.ndim == 1 or p.shape[0] == 1 for p in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_eight_views_are_all_different():
    image = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4)
    views = turned_and_flipped(image)
    assert views.shape == (8, 3, 4, 4)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8
    assert torch.equal(views[0], image[0])


def test_decoding_a_folder(photographs):
    from pi_dynn.data.folders import ImageFolder, walk_images

    paths = list(walk_images(photographs))
    images = decode_all(ImageFolder(photographs, ["a"], paths, [0] * len(paths)), Preprocess(size=16))
    assert images.shape == (6, 3, 16, 16) and images.dtype == torch.uint8


def test_checkpoints_are_read_back_by_block(tmp_path):
    """The file of the script contains its exits, so any set of them can be exported."""
    import json

    from safetensors.torch import save_file

    from pi_dynn import load_checkpoint

    model = create_model("gfnet_12_192", num_classes=2, image_size=32, exits=[2, 5])
    path = tmp_path / "net.safetensors"
    save_file(model.state_dict(), path, {"exit_blocks": json.dumps([2, 5])})
    other = create_model("gfnet_12_192", num_classes=2, image_size=32, exits=[5])
    assert load_checkpoint(other, path).fits
    torch.testing.assert_close(other.intermediate_heads[0].weight.data, load_file(path)["intermediate_heads.1.weight"])

"""What a checkpoint is, read off its card or its weights: one reader for `train` and `export`."""

import pytest
import torch

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.data.torchvision_ops import torchvision
from pi_dynn.errors import CheckpointError, ModelError
from pi_dynn.models import create_model, load_checkpoint
from pi_dynn.models.card import Card, save_weights
from pi_dynn.models.checkpoint_card import card_of


def saved(state, path):
    torch.save({"model": state}, path)
    return path


@pytest.mark.parametrize(
    ("name", "size", "form", "options"),
    [
        ("gfnet_12_192", 32, {"exits": "all"}, {}),
        ("gfnet_12_192", 64, {"distilled": True, "exits": "all", "exit_heads": "cls+dist"}, {}),
        ("gfnet_12_192_narrow", 32, {}, {}),
        ("gfnet_12_192_pooled", 64, {"exits": "all"}, {}),
        ("gfnet_h_ti", 32, {}, {}),
        ("branchynet", 32, {"exits": [1, 3]}, {"model": "branchynet", "image_size": 32}),
        ("b_lenet", 28, {"exits": [0]}, {"model": "b_lenet", "image_size": 28}),
        ("recnext_t", 64, {"distilled": True}, {"model": "recnext_t", "image_size": 64}),
        ("lsnet_t", 64, {"exits": "all"}, {"model": "lsnet_t", "image_size": 64}),
        ("mobilenet_v3_small", 32, {"exits": "all"}, {"model": "torchvision:mobilenet_v3_small", "image_size": 32}),
    ],
)
def test_weights_without_a_card(name, size, form, options, tmp_path):
    model = create_model(name, num_classes=7, image_size=size, **form)
    card = card_of(saved(model.state_dict(), tmp_path / "net.pth"), **options)
    again = create_model(card.model, **card.arguments)
    assert again.name == name and len(card.classes) == 7 and card.preprocess.size == size
    assert again.exit_blocks == model.exit_blocks
    assert load_checkpoint(again, tmp_path / "net.pth").fits


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_a_file_of_torchvision(name, tmp_path):
    state = torchvision.models.get_model(name, num_classes=4).state_dict()
    card = card_of(saved(state, tmp_path / "net.pth"), model=f"torchvision:{name}", image_size=64)
    model = create_model(card.model, **card.arguments)
    assert card.model == ("resnet18" if name == "resnet18" else f"torchvision:{name}")
    assert load_checkpoint(model, tmp_path / "net.pth").fits


def test_a_card_goes_first_and_what_is_asked_for_before_it(tmp_path):
    model = create_model("gfnet_12_192", num_classes=3, image_size=32, exits=[2, 5])
    arguments = model.arguments | {"drop_path": 0.1}
    card = Card("gfnet_12_192", arguments, ["ant", "bee", "cat"], Preprocess(32, crop=0.9), [{"stage": "x"}])
    save_weights(tmp_path / "net.safetensors", model.state_dict(), card)
    assert card_of(tmp_path / "net.safetensors") == card
    other = card_of(tmp_path / "net.safetensors", image_size=64, exits=[5])
    assert other.arguments == arguments | {"image_size": 64, "exits": [5]} and other.classes == card.classes


def test_what_nobody_can_tell(tmp_path):
    state = create_model("b_lenet", num_classes=3, image_size=28).state_dict()
    path = saved(state, tmp_path / "net.pth")
    with pytest.raises(ModelError, match="pass --model"):
        card_of(path)
    with pytest.raises(CheckpointError, match="pass --image-size"):
        card_of(path, model="b_lenet")
    with pytest.raises(CheckpointError, match="is it a lsnet_t classifier"):
        card_of(path, model="lsnet_t", image_size=64)

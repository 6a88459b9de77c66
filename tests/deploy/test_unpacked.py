"""Weights out of a bundle: the network trained on from them answers as the bundle did."""

from collections import defaultdict

import pytest
import torch

from pi_dynn import Preprocess, build_bundle, create_model, load_bundle, load_checkpoint
from pi_dynn.deploy import unpacked
from pi_dynn.deploy.unpacked import training_form, weights_to_start_from
from pi_dynn.errors import CheckpointError
from pi_dynn.models.checkpoint_card import card_of
from pi_dynn.runtime.engine_choice import relative_error
from tests.networks import random_gfnet


@torch.inference_mode()
def test_the_embedded_network_comes_back_with_its_answers(tmp_path):
    path = weights_to_start_from(tmp_path / ".." / "embedded", tmp_path)
    assert path == tmp_path / ".." / "embedded"  # a file of that name would be meant
    path = weights_to_start_from(type(tmp_path)("embedded"), tmp_path)
    card, bundle = card_of(path), load_bundle()
    assert card.classes == bundle.manifest.labels and card.arguments["exits"] == bundle.manifest.exit_blocks
    model = create_model(card.model, **card.arguments).eval()
    load_checkpoint(model, path)
    x = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    wanted = bundle.load_network("fp32").forward_all(x)
    assert relative_error([logits for _, logits, _ in model.forward_exits(x)], wanted) < 1e-3


@torch.inference_mode()
@pytest.mark.parametrize(
    ("size", "name", "form"),
    [
        (64, "gfnet_12_192", {}),
        (128, "gfnet_12_192_pooled", {}),
        (128, "gfnet_12_192", {"distilled": True}),
        (32, "gfnet_12_192", {"distilled": True, "exit_heads": "cls+dist"}),
    ],
)
def test_a_bundle_of_other_classes_and_exits_comes_back_too(size, name, form, tmp_path):
    model = random_gfnet(name, image_size=size, num_classes=5, exits=[1, 4, 8], **form)
    given = {"labels": list("abcde"), "preprocess": Preprocess(size=size)}
    bundle = build_bundle(model, exits=[4], thresholds=[0.5], **given)
    bundle.save(tmp_path / "a.pt")
    card = card_of(weights_to_start_from(tmp_path / "a.pt", tmp_path / "out"))
    assert (card.model, card.arguments["exits"], card.classes) == (name, [4], list("abcde"))
    again = create_model(card.model, **card.arguments).eval()
    load_checkpoint(again, tmp_path / "out" / "init.safetensors")
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    for (_, _, gate), score in zip(
        again.forward_exits(x), bundle.load_network("fp32").forward_scored(x)[1], strict=True
    ):
        torch.testing.assert_close(gate.double(), score, atol=1e-3, rtol=0)


def test_a_bundle_that_cannot_be_read_back_says_so(tmp_path, tiny_bundle_path, monkeypatch):
    monkeypatch.setattr(unpacked, "_filter_constants", lambda network: defaultdict(list))
    with pytest.raises(CheckpointError, match="filters of the bundle are of another form"):
        weights_to_start_from(tiny_bundle_path, tmp_path)
    monkeypatch.undo()
    model = random_gfnet(image_size=32, num_classes=5, exits=[1])
    given = {"labels": list("abcde"), "preprocess": Preprocess(size=32), "exits": [1], "thresholds": [0.5]}
    floats = build_bundle(model, precision="fp32", **given)
    with pytest.raises(CheckpointError, match="gfnet_12_192 in fp32, whose weights cannot be read back"):
        training_form(floats)
    monkeypatch.setattr(unpacked, "WORST_RELATIVE_ERROR", 0.0)
    with pytest.raises(CheckpointError, match="answer otherwise"):
        training_form(load_bundle())
    assert weights_to_start_from(tmp_path / "net.pth", tmp_path) == tmp_path / "net.pth"

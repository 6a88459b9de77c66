"""`pi-dynn train exits` as a person uses it."""

import json
from dataclasses import replace

import pytest
import torch

from pi_dynn import load_bundle
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.models import create_model, registry
from pi_dynn.models.backbones import BackboneWithExits
from pi_dynn.models.card import read_card
from pi_dynn.models.presets import preset_named, presets
from tests.cli.training import QUICK, SEEN, last_line, transfer
from tests.networks import small_sequential

pytestmark = pytest.mark.usefixtures("tiny_network")


def test_exits_can_learn_along_without_gates(pi_dynn, scenes, tmp_path):
    outcome = transfer(pi_dynn, scenes, tmp_path / "a", "--exits", "0,1", "--exit-weight", 0.5, "--json")
    result = last_line(outcome)["result"]
    assert result["stage"] == "joint" and set(result["depth_accuracies"]) == {"0", "1", "2"}
    card = read_card(result["weights"])
    assert card.arguments["exits"] == [0, 1] and card.stages[0]["options"]["exit_weight"] == 0.5


def test_joint_exits_of_a_network_from_scratch(pi_dynn, scenes, tmp_path):
    outcome = pi_dynn(
        *("train", "exits", "--joint", "tiny", "--joint-epochs", 3, "--exit-weight", 1.0, "--data", scenes),
        *("--out", tmp_path / "a", *SEEN, *QUICK, "--json", "--tolerated-loss", 1, "--all-views", "--turn", 1),
        *("--precision", "fp32", "--most-exits", 1),
    )
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row.get("stage") for row in rows] == ["joint"] * 3 + ["bilevel"] * 2 + [None]
    result = rows[-1]["result"]
    assert len(result["exit_blocks"]) == 1  # any accuracy is tolerated, so leaving early is worth it
    judged = Evaluation.from_dict(result["evaluation"])
    assert judged.mean_macs < judged.full_depth_macs and judged.images == 6
    manifest = load_bundle(result["bundle"]).manifest
    assert manifest.precision == "fp32" and [stage["stage"] for stage in manifest.notes["stages"]] == ["joint", "exits"]
    whole, parts = (read_card(tmp_path / "a" / name) for name in ("exits.safetensors", "joint/best.safetensors"))
    assert whole.arguments == parts.arguments and (tmp_path / "a" / "features_train.safetensors").exists()


def test_exits_go_on_from_weights_of_any_family_without_a_card(pi_dynn, scenes, tmp_path):
    state = create_model("torchvision:resnet18", num_classes=3, image_size=32).backbone.state_dict()
    torch.save(state, tmp_path / "net.pth")
    arguments = ("train", "exits", "--data", scenes, "--init", tmp_path / "net.pth", "--exits", "0,5", "--dry-run")
    assert "pass --model" in pi_dynn(*arguments, "--out", tmp_path / "a", *QUICK).err
    named = ("--model", "torchvision:resnet18", "--image-size", 32)
    outcome = pi_dynn(*arguments, "--out", tmp_path / "b", *QUICK, *named)
    assert outcome.status == 0 and "exits: resnet18" in outcome.out


def test_convolutions_end_in_static_int8_or_are_refused_at_once(pi_dynn, scenes, tmp_path, monkeypatch):
    def convolutions(num_classes, image_size, exits, **_):
        return BackboneWithExits(small_sequential(num_classes), exits, num_classes, image_size)

    monkeypatch.setitem(registry._BUILDERS, "convolutions", convolutions)
    monkeypatch.setenv("PI_DYNN_ENGINE", "auto")
    joint = ("--joint", "convolutions", "--joint-epochs", 1, "--exits", "1,2", "--tolerated-loss", 1, *SEEN, *QUICK)
    run = ("train", "exits", "--data", scenes, *joint)
    result = last_line(pi_dynn(*run, "--out", tmp_path / "a", "--json"))["result"]
    manifest = load_bundle(result["bundle"]).manifest
    assert manifest.precision == "int8-static" and manifest.notes["static_int8"]["images"] == 24
    outcome = pi_dynn(*run, "--out", tmp_path / "b", "--precision", "int8")
    assert outcome.status == 1 and "no bundle in int8, so nothing is trained" in outcome.err
    assert not list((tmp_path / "b").rglob("log.csv"))


def test_exits_keep_the_heads_that_read_both_tokens(pi_dynn, scenes, tmp_path):
    model = create_model(
        "gfnet_12_192", num_classes=3, image_size=32, distilled=True, exits="all", exit_heads="cls+dist"
    )
    torch.save(model.state_dict(), tmp_path / "net.pth")
    arguments = ("--data", scenes, "--init", tmp_path / "net.pth", "--exits", "0,5", "--out", tmp_path / "a", "--json")
    outcome = pi_dynn("train", "exits", *arguments, *QUICK, "--epochs", 1, "--head-epochs", 1, "--precision", "fp32")
    assert outcome.status == 0, outcome.err
    card = read_card(last_line(outcome)["result"]["weights"])
    assert card.arguments["exit_heads"] == "cls+dist" and card.arguments["distilled"] is True


def test_exits_of_a_network_that_is_no_match(pi_dynn, scenes, other_scenes, tmp_path):
    assert transfer(pi_dynn, other_scenes, tmp_path / "a", "--epochs", 1).status == 0
    arguments = ("train", "exits", "--data", scenes, "--out", tmp_path / "b", *QUICK)
    outcome = pi_dynn(*arguments, "--init", tmp_path / "a" / "best.safetensors")
    assert outcome.status == 1 and "knows 2 classes and the images have 3" in outcome.err
    assert pi_dynn(*arguments).status == 2
    assert "either --init with a trained network, or --joint" in pi_dynn(*arguments).err
    outcome = pi_dynn(*arguments, "--joint", "torchvision:squeezenet1_1", "--exits", "0", *SEEN)
    assert outcome.status == 1 and "torchvision:squeezenet1_1 takes no exits" in outcome.err
    outcome = pi_dynn(*arguments, "--joint", "tiny", "--exits", "first", *SEEN)
    assert outcome.status == 2 and "expected 'all' or block indices" in outcome.err


def test_exits_and_thresholds_of_a_preset_are_kept(pi_dynn, scenes, tmp_path, monkeypatch):
    preset = replace(preset_named("nasc-dynn"), exits=[0, 1], thresholds=[0.3, 0.4])
    monkeypatch.setitem(presets(), "tiny-dynn", preset)
    assert transfer(pi_dynn, scenes, tmp_path / "a").status == 0
    exits = (
        "train",
        "exits",
        "--data",
        scenes,
        "--init",
        tmp_path / "a" / "best.safetensors",
        *QUICK,
        "--head-epochs",
        1,
    )
    outcome = pi_dynn(*exits, "--preset", "tiny-dynn", "--out", tmp_path / "b", "--precision", "fp32")
    assert outcome.status == 0, outcome.err
    assert "exits after blocks 0, 1, a threshold for each" in outcome.out
    manifest = load_bundle(tmp_path / "b" / "bundle.pt").manifest
    assert (manifest.exit_blocks, manifest.thresholds) == ([0, 1], [0.3, 0.4])
    assert manifest.notes["thresholds_chosen"].startswith("given by hand: accuracy")
    for wrong, error in (
        (("--keep-exits", "1,0"), "--keep-exits 1,0: give some, in order, of the trained [0, 1]"),
        (("--keep-exits", "0,1", "--thresholds", "0.1,0.2,0.3"), "3 thresholds for 2 exits"),
        (("--thresholds", "0.1"), "give --keep-exits with them"),
    ):
        outcome = pi_dynn(*exits, *wrong, "--out", tmp_path / "c")
        assert outcome.status == 1 and error in outcome.err

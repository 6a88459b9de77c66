"""export: checkpoints of every family, and other forms of a bundle."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from pi_dynn import Preprocess, load_bundle
from pi_dynn.models import create_model
from pi_dynn.models.card import Card, save_weights
from tests.networks import with_trained_norms


@pytest.fixture
def exported(pi_dynn, tmp_path):
    """Export a state dict with options; the outcome, and the bundle's path."""

    def run(state, *options):
        save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "net.safetensors")
        out = tmp_path / "net.pt"
        return pi_dynn("export", tmp_path / "net.safetensors", "-o", out, "--precision", "fp32", *options), out

    return run


def test_a_network_with_branches(exported, pi_dynn, photographs):
    model = with_trained_norms(create_model("branchynet", num_classes=4, image_size=32, exits=[0, 1, 3]))
    options = ("--model", "branchynet", "--image-size", 32, "--mean", "0,0,0", "--std", "1,1,1")
    outcome, bundle = exported(model.state_dict(), *options, "--exits", "1,3", "--threshold", 0.2)
    assert outcome.status == 0 and "branchynet fp32, 4 classes, 2 exits" in outcome.out
    manifest = load_bundle(bundle).manifest
    assert manifest.exit_blocks == [1, 3]
    assert manifest.preprocess == Preprocess(32, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert pi_dynn("classify", photographs, "--bundle", bundle).status == 0


def test_a_backbone_by_its_own_checkpoint(exported):
    model = create_model("mobilenet_v3_small", num_classes=6, image_size=32)
    outcome, bundle = exported(model.backbone.state_dict(), "--model", "mobilenet_v3_small", "--image-size", 32)
    assert outcome.status == 0
    assert len(load_bundle(bundle).manifest.labels) == 6


def test_a_network_of_torchvision_by_its_own_name(exported, pi_dynn):
    model = create_model("mobilenet_v3_small", num_classes=6, image_size=32)
    named = ("--model", "torchvision:mobilenet_v3_small", "--image-size", 32)
    assert exported(model.backbone.state_dict(), *named)[0].status == 0
    named = ("--model", "torchvision:squeezenet1_1", "--image-size", 64)
    other = exported(create_model("torchvision:squeezenet1_1", num_classes=3, image_size=64).state_dict(), *named)[0]
    assert other.status == 1 and "torchvision:squeezenet1_1 is no chain of stages known here" in other.err
    assert "mobilenet_v3_small" in pi_dynn("models", "torchvision:mobilenet_v3_small").out
    assert "gfnet_xs" in pi_dynn("models", "gfnet_12_384").out


def test_missing_options_are_named(exported):
    state = create_model("b_lenet", num_classes=3, image_size=28).state_dict()
    assert "pass --model" in exported(state)[0].err
    assert "pass --image-size" in exported(state, "--model", "b_lenet")[0].err
    assert exported(state, "--model", "b_lenet", "--image-size", 28)[0].status == 0
    wrong = exported(state, "--model", "lsnet_t", "--image-size", 64)[0]
    assert wrong.status == 1 and "is it a lsnet_t classifier?" in wrong.err
    assert exported(state, "--mean", "1,2")[0].status == 2


def test_a_card_is_enough(pi_dynn, tmp_path):
    arguments = {"num_classes": 3, "image_size": 28, "exits": [0]}
    model = create_model("b_lenet", **arguments)
    preprocess = Preprocess(28, crop=0.9, mean=(0.0,) * 3, std=(1.0,) * 3)
    card = Card("b_lenet", arguments, ["ant", "bee", "cat"], preprocess)
    save_weights(tmp_path / "net.safetensors", model.state_dict(), card)
    assert pi_dynn("export", tmp_path / "net.safetensors", "-o", tmp_path / "n.pt", "--precision", "fp32").status == 0
    manifest = load_bundle(tmp_path / "n.pt").manifest
    assert (manifest.labels, manifest.exit_blocks) == (card.classes, [0])
    assert manifest.preprocess == preprocess


def test_a_bundle_into_onnx(pi_dynn, tiny_bundle_path, tmp_path, photographs):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "tiny.onnx.zip"
    outcome = pi_dynn("export", tiny_bundle_path, "-o", out, "--format", "onnx", "--precision", "fp32")
    assert outcome.status == 0 and "gfnet_12_192 fp32, 5 classes, 3 exits, onnx" in outcome.out
    expected = pi_dynn("classify", photographs, "--bundle", tiny_bundle_path, "--engine", "fp32", "--top", 1).out
    answers = pi_dynn("classify", photographs, "--bundle", out, "--engine", "onnxruntime", "--top", 1).out
    assert [line.split()[:2] for line in answers.splitlines()[:6]] == [
        line.split()[:2] for line in expected.splitlines()[:6]
    ]
    assert "is a bundle already" in pi_dynn("export", tiny_bundle_path, "-o", tmp_path / "b.pt").err
    by_name = pi_dynn("export", tiny_bundle_path, "-o", out)
    assert by_name.status == 0 and "3 exits, onnx" in by_name.out and by_name.err == ""
    assert "leave out --crop" in pi_dynn("export", tiny_bundle_path, "-o", out, "--format", "onnx", "--crop", 0.5).err
    again = pi_dynn("export", out, "-o", tmp_path / "b.zip", "--format", "onnx")
    assert again.status == 1 and "in ONNX already" in again.err
    assert not (tmp_path / "b.zip").exists()


@pytest.fixture
def with_images(tmp_path, photographs):
    """A folder with a network of convolutions and, under data, images of a class."""
    arguments = {"num_classes": 2, "image_size": 32, "exits": [1]}
    torch.manual_seed(0)
    model = with_trained_norms(create_model("branchynet", **arguments))
    card = Card("branchynet", arguments, ["ant", "bee"], Preprocess(32))
    save_weights(tmp_path / "net.safetensors", model.state_dict(), card)
    shutil.copytree(photographs, tmp_path / "data" / "ant")
    return tmp_path


def test_static_int8_in_torchscript(pi_dynn, with_images, photographs):
    arguments = ("export", with_images / "net.safetensors", "-o", with_images / "net.pt", "--precision", "int8-static")
    outcome = pi_dynn(*arguments, "--data", with_images / "data")
    assert outcome.status == 0 and "branchynet int8-static, 2 classes, 1 exit, torchscript" in outcome.out
    assert outcome.err.startswith("Note: thresholds not chosen, 0.9 everywhere: ")
    assert pi_dynn(*arguments, "--data", with_images / "data", "--threshold", 0.9).err == ""
    assert load_bundle(with_images / "net.pt").manifest.notes["static_int8"]["images"] == 6
    classify = ("classify", photographs, "--bundle", with_images / "net.pt", "--engine")
    assert pi_dynn(*classify, "qnnpack").status == 0
    in_floats = pi_dynn(*classify, "fp32")
    assert in_floats.status != 0 and "cannot compute in floats" in in_floats.err
    assert "pass --data DIR" in pi_dynn(*arguments).err
    data = ("--data", with_images / "data")
    assert "int8-static is for TorchScript" in pi_dynn(*arguments, *data, "--format", "onnx").err
    assert "pass --precision int8-static" in pi_dynn(*arguments[:-2], *data).err


def test_static_int8_in_onnx(pi_dynn, with_images, photographs):
    pytest.importorskip("onnxruntime")
    tmp_path = with_images
    arguments = ("export", tmp_path / "net.safetensors", "-o", tmp_path / "net.onnx.zip", "--format", "onnx")
    outcome = pi_dynn(*arguments, "--data", tmp_path / "data")
    assert outcome.status == 0 and "branchynet int8, 2 classes, 1 exit, onnx" in outcome.out
    assert pi_dynn("classify", photographs, "--bundle", tmp_path / "net.onnx.zip").status == 0
    assert "have no int8 form: pass precision=" in pi_dynn(*arguments).err
    assert "--data is for static int8" in pi_dynn(*arguments, "--data", tmp_path / "data", "--precision", "fp32").err


def test_static_int8_for_litert(pi_dynn, with_images, photographs):
    for module in ("onnxruntime", "ai_edge_litert"):
        pytest.importorskip(module)
    out, data = with_images / "net.tflite.zip", ("--data", with_images / "data")
    arguments = ("export", with_images / "net.safetensors", "-o", out, "--format", "litert")
    outcome = pi_dynn(*arguments, *data)
    assert outcome.status == 0 and "branchynet int8-static, 2 classes, 1 exit, litert" in outcome.out
    assert outcome.err.startswith("Note: thresholds not chosen, 0.9 everywhere: ")
    summary = pi_dynn("classify", photographs, "--bundle", out, "--json").out.splitlines()[-1]
    assert json.loads(summary)["summary"]["engine"] == "litert"
    assert "litert" in pi_dynn("info", out).out
    assert "pass --data DIR" in pi_dynn(*arguments).err
    assert "pass --precision int8-static or fp32" in pi_dynn(*arguments, "--precision", "int8").err
    assert "--data is for static int8" in pi_dynn(*arguments, *data, "--precision", "fp32").err
    again = ("export", "-o", with_images / "b.zip", "--format", "litert")
    assert "leave out --precision" in pi_dynn(*again, "--precision", "fp32").err
    assert "pass --data DIR" in pi_dynn(*again).err
    assert "in LiteRT already" in pi_dynn(*again[:1], out, *again[1:]).err
    assert not (with_images / "b.zip").exists()


def test_exits_by_choice(pi_dynn, tiny_bundle_path, photographs):
    options = ("--bundle", tiny_bundle_path, "--engine", "fp32", "--threshold", 0, "--json")
    lines = pi_dynn("classify", photographs, *options, "--exits", "4,8").out.splitlines()
    assert {json.loads(line)["block_index"] for line in lines[:-1]} == {4}
    assert pi_dynn("classify", photographs, *options, "--exits", "x").status == 2
    assert "the bundle has exits after blocks [1, 4, 8]" in pi_dynn("classify", photographs, *options, "--exits", 2).err


def test_a_checkpoint_into_onnx(pi_dynn, tiny_model, tmp_path):
    pytest.importorskip("onnxruntime")
    torch.save({"model": tiny_model.state_dict(), "exit_blocks": [1, 4, 8]}, tmp_path / "net.pth")
    assert pi_dynn("export", tmp_path / "net.pth", "-o", tmp_path / "n.zip", "--format", "onnx").status == 0
    manifest = load_bundle(tmp_path / "n.zip").manifest
    assert (manifest.format, manifest.precision, manifest.exit_blocks) == ("onnx", "int8", [1, 4, 8])

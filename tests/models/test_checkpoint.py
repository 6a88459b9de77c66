"""Files people have, good and bad, into networks."""

import argparse
import os
import pickle
import random

import pytest
import torch
from safetensors.torch import save_file

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import CheckpointError
from pi_dynn.models import create_model, load_checkpoint
from pi_dynn.models.card import Card, save_weights
from pi_dynn.models.checkpoint import grid_of, image_size_of
from pi_dynn.models.checkpoint_file import read_checkpoint
from pi_dynn.train.run_folder import RunFolder


def same(model, other):
    return all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def refusal(model, path, **kwargs):
    """The one line with which loading is refused; the model keeps its weights."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, path, **kwargs)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, Exception)
    return str(caught.value)


def save_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


WRAPPINGS = {
    "bare": lambda sd: sd,
    "GFNet": lambda sd: {"model": sd, "optimizer": {"state": {}}, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
    "JEI-DNN": lambda sd: {"net": {f"module.{key}": value for key, value in sd.items()}, "acc": 97.5, "epoch": 3},
    "Lightning": lambda sd: {"state_dict": sd},
    "compiled": lambda sd: {f"_orig_mod.{key}": value for key, value in sd.items()},
    "half": lambda sd: {"model": {key: value.half() for key, value in sd.items()}},
}


@pytest.mark.parametrize("save", [torch.save, save_legacy])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_pytorch_files(tiny, tmp_path, wrapping, save):
    source, target = tiny(), tiny()
    save(WRAPPINGS[wrapping](source.state_dict()), tmp_path / "x.pth")
    report = load_checkpoint(target, tmp_path / "x.pth")
    assert same(target, source.half().float() if wrapping == "half" else source)
    assert report.fits
    assert report.left_out == ()
    assert report.resized_from is None


def test_safetensors_files_whatever_their_name(tiny, tiny_pyramid, tmp_path):
    for build in (tiny, tiny_pyramid):
        source, target = build(exits=[1]), build(exits=[1])
        save_file(source.state_dict(), tmp_path / "weights.bin")
        assert load_checkpoint(target, str(tmp_path / "weights.bin")).fits
        assert same(target, source)


def test_training_only_projection_is_left_out(tiny, tmp_path):
    source, target = tiny(), tiny()
    projection = {"fc1.0.weight": torch.ones(16), "fc1.2.weight": torch.ones(4, 16)}
    torch.save({"model": source.state_dict() | projection}, tmp_path / "x.pth")
    assert load_checkpoint(target, tmp_path / "x.pth").left_out == tuple(projection)
    assert same(target, source)


def test_a_misfit_names_every_key_and_changes_nothing(tiny, tmp_path):
    state = tiny().state_dict()
    state["norm.wight"] = state.pop("norm.weight")
    state["stray"] = torch.zeros(2)
    del state["blocks.3.mlp.fc1.bias"]
    state["head.weight"], state["head.bias"] = torch.zeros(7, 16), torch.zeros(7)
    torch.save({"model": state}, tmp_path / "x.pth")
    text = refusal(tiny(), tmp_path / "x.pth")
    assert "x.pth' does not fit GFNet" in text
    missing, unexpected, misshaped, hint = text.split("; ", 3)
    assert missing.endswith("missing: blocks.3.mlp.fc1.bias, norm.weight")
    assert unexpected == "unexpected: norm.wight, stray"
    assert misshaped == "wrong shape: head.weight (file 7x16, model 3x16), head.bias (file 7, model 3)"
    assert "7 classes" in hint


def test_not_strict_loads_what_fits_and_reports_the_rest(tiny, tmp_path):
    source, target = tiny(num_classes=7), tiny(exits=[2])
    before = target.head.weight.clone()
    torch.save(source.state_dict(), tmp_path / "x.pth")
    report = load_checkpoint(target, tmp_path / "x.pth", strict=False)
    assert not report.fits
    assert [text.split()[0] for text in report.misshaped] == ["head.weight", "head.bias"]
    assert set(report.missing) == {
        "intermediate_heads.0.weight",
        "intermediate_heads.0.bias",
        "gates.0.linear.weight",
        "gates.0.linear.bias",
    }
    assert torch.equal(target.head.weight, before)
    assert torch.equal(target.blocks[7].filter.complex_weight, source.blocks[7].filter.complex_weight)


@pytest.mark.parametrize("px", [32, 128])
def test_another_image_size_is_resized(tiny, tmp_path, px):
    source, target = tiny(image_size=64), tiny(image_size=px)
    torch.save({"model": source.state_dict()}, tmp_path / "x.pth")
    report = load_checkpoint(target, tmp_path / "x.pth")
    assert report.resized_from == 64
    assert torch.equal(target.blocks[2].mlp.fc1.weight, source.blocks[2].mlp.fc1.weight)
    assert target.blocks[2].filter.complex_weight.abs().sum() > 0


def test_a_pyramid_is_resized(tiny_pyramid, tmp_path):
    save_file(tiny_pyramid(image_size=64).state_dict(), tmp_path / "x.safetensors")
    assert load_checkpoint(tiny_pyramid(image_size=96), tmp_path / "x.safetensors").resized_from == 64


def test_a_distilled_file_loads_at_its_own_size_only(tiny, tmp_path):
    source = tiny(image_size=128, distilled=True, exits=[3])
    torch.save(source.state_dict(), tmp_path / "x.pth")
    target = tiny(image_size=128, distilled=True, exits=[3])
    load_checkpoint(target, tmp_path / "x.pth")
    assert same(target, source)
    assert "cannot be resized from 128 to 64 px" in refusal(tiny(image_size=64, distilled=True), tmp_path / "x.pth")
    assert "build the model with distilled=True" in refusal(tiny(image_size=128), tmp_path / "x.pth")


def test_size_and_grid_are_read_off_the_weights(tiny, tiny_pyramid):
    assert image_size_of(tiny(image_size=96).state_dict()) == 96
    assert image_size_of(tiny(image_size=128, distilled=True).state_dict()) == 128
    assert image_size_of(tiny_pyramid(image_size=96).state_dict()) == 96
    assert image_size_of({"stem.weight": torch.zeros(3)}) is None
    assert grid_of(tiny(image_size=128).state_dict()) == (8, 8)
    for grid in ((11, 6), (22, 3)):  # as many parameters either way
        assert grid_of(tiny(image_size=128, distilled=True, grid=grid).state_dict()) == grid


def test_another_grid_of_a_distilled_file_is_said(tiny, tmp_path):
    source = tiny(image_size=128, distilled=True, grid=(22, 3))
    torch.save(source.state_dict(), tmp_path / "x.pth")
    assert "build the model with grid=(22, 3)" in refusal(tiny(image_size=128, distilled=True), tmp_path / "x.pth")
    target = tiny(image_size=128, distilled=True, grid=(22, 3))
    load_checkpoint(target, tmp_path / "x.pth")
    assert same(target, source)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["torch", "legacy", "plain pickle"])
def test_a_file_with_code_is_refused_and_not_run(tiny, tmp_path, kind):
    path, trace = tmp_path / "x.pth", tmp_path / "ran"
    content = {"model": tiny().state_dict(), "extra": RunsCode(trace)}
    if kind == "plain pickle":
        path.write_bytes(pickle.dumps(content["extra"], protocol=2))
    else:
        (torch.save if kind == "torch" else save_legacy)(content, path)
    text = refusal(tiny(), path)
    assert "refused: it would run" in text
    assert "mkdir" in text
    assert not trace.exists()


def test_a_whole_pickled_network_is_refused(tiny, tmp_path):
    torch.save(tiny(), tmp_path / "x.pth")
    assert "GFNet" in (text := refusal(tiny(), tmp_path / "x.pth"))
    assert "save it anew" in text


def test_missing_empty_and_damaged_files(tiny, tmp_path):
    path = tmp_path / "x.pth"
    assert f"there is no checkpoint at {str(path)!r}" in refusal(tiny(), path)
    assert "cannot be read" in refusal(tiny(), tmp_path)
    path.write_bytes(b"")
    assert "is empty" in refusal(tiny(), path)
    torch.save(tiny().state_dict(), path)
    whole = path.read_bytes()
    save_file(tiny().state_dict(), path)
    other = pickle.dumps({"model": 1}, protocol=4)
    for damaged in (whole[: len(whole) // 2], b"<html>404</html>", b"\x80\x02garbage", path.read_bytes()[:500], other):
        path.write_bytes(damaged)
        text = refusal(tiny(), path)
        assert "damaged or of another kind" in text
        assert "weights_only" not in text


def with_a_fault(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one bit turned, some changed, or some missing; half of the places are near the ends."""
    changed = bytearray(data)
    ends = (rng.randrange(min(3000, len(data))), rng.randrange(max(0, len(data) - 3000), len(data)))
    place = rng.choice((*ends, rng.randrange(len(data)), rng.randrange(len(data))))
    match rng.randrange(3):
        case 0:
            changed[place] ^= 1 << rng.randrange(8)
        case 1:
            changed[place : place + 4] = rng.randbytes(min(4, len(data) - place))
        case _:
            del changed[place : place + rng.randrange(1, 9)]
    return bytes(changed)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "state.pt"])
def test_a_damaged_file_never_gives_other_weights(name, tmp_path):
    model = create_model("b_lenet", num_classes=3, image_size=28, exits=[0])
    path, state, card = tmp_path / name, model.state_dict(), Card("b_lenet", model.arguments, ["a"], Preprocess(28))
    run = RunFolder(tmp_path, card)
    match name:
        case "x.pth":
            torch.save({"model": state}, path)
        case "x.safetensors":
            save_weights(path, state, card)
        case _:
            run.save_state({"model": state})
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(150):
        path.write_bytes(with_a_fault(whole, rng))
        try:
            found = run.load_state()["model"] if name == "state.pt" else read_checkpoint(path).state
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)
    assert refused > 100


def test_a_bundle_is_no_checkpoint(tiny, tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "x.pt")
    assert "TorchScript archive" in refusal(tiny(), tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([1, 2], "holds a list"),
        ({"epoch": 3, "acc": 0.5}, "no tensors (epoch, acc)"),
        ({"model": {}}, "no entries"),
        ({"model": {"head.weight": [1.0]}}, "no tensors (head.weight)"),
    ],
)
def test_files_without_a_state_dict(tiny, tmp_path, content, text):
    torch.save(content, tmp_path / "x.pth")
    assert text in refusal(tiny(), tmp_path / "x.pth")

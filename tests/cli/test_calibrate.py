"""`pi-dynn calibrate`, and the records it makes in `evaluate` and `classify`."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pi_dynn.calibrate.records import CalibrationRecord, OperatingPoint, RuleResult, load_record, save_record
from pi_dynn.data.folders import open_image_folder, save_split, stratified_split
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.runtime.bundle import load_bundle


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for number, label in enumerate("abc"):
        (root / label).mkdir()
        for i in range(8):
            noise = np.clip(rng.normal(128, 20 + 30 * i, (40, 40, 1)), 0, 255).astype(np.uint8).repeat(3, 2)
            Image.fromarray(noise).rotate(40 * number).save(root / label / f"{i}.png")
    return root


@pytest.fixture(autouse=True)
def one_engine(monkeypatch):
    """Of two bundles with the same weights each may find another int8 engine the faster, and answer a shade apart."""
    monkeypatch.setenv("PI_DYNN_ENGINE", "fp32")


@pytest.fixture(scope="module")
def split(dataset, tmp_path_factory):
    path = tmp_path_factory.mktemp("split") / "split.json"
    save_split(path, stratified_split(open_image_folder(dataset), {"calibrate": 0.5, "test": 0.5}, 0), 0)
    return path


@pytest.fixture
def calibrate(pi_dynn, dataset, tiny_bundle_path):
    return lambda *arguments: pi_dynn("calibrate", dataset, "--bundle", tiny_bundle_path, "--threads", 1, *arguments)


@pytest.fixture
def record_path(calibrate, tmp_path):
    path = tmp_path / "record.json"
    assert calibrate("--rule", "target-accuracy", "--max-loss", 20, "-o", path).status == 0
    return path


def test_a_record_says_what_it_was_made_of(calibrate, dataset, split, tiny_bundle, tmp_path):
    path = tmp_path / "record.json"
    arguments = ("--split", split, "--rule", "sweep", "--keep", 2, "-o", path)
    outcome = calibrate(*arguments)
    assert outcome.status == 0
    record = load_record(path)
    assert (record.rule, record.images, record.part, record.dataset) == ("sweep", 12, "calibrate", dataset.name)
    assert record.bundle == tiny_bundle.sha256 and len(record.split) == 64
    assert record.exits == [1, 4, 8, 11] and record.costs == [float(value) for value in tiny_bundle.manifest.macs]
    assert record.settings["keep"] == 2 and len(record.temperatures) == 4
    lines = outcome.out.splitlines()
    assert lines[0].split()[:5] == ["threshold", "block", "1", "block", "4"]
    assert sum(line.startswith("0.") for line in lines) == 12  # the published grid
    assert any(line.startswith("before pruning: accuracy") for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--rule", "target-accuracy", "--max-loss", 5),
        ("--rule", "budget", "--budget-macs", 5),
        ("--rule", "percentile", "--score", "entropy"),
        ("--rule", "msdnet", "--score", "patience"),
        ("--rule", "risk", "--epsilon", 60, "--delta", 0.4),
    ],
)
def test_every_rule_prints_json_and_nothing_else(calibrate, arguments):
    outcome = calibrate(*arguments, "--json")
    assert outcome.status == 0
    (line,) = outcome.out.splitlines()
    record = CalibrationRecord.from_dict(json.loads(line))
    assert record.rule == arguments[1] and (record.promise is not None) == (record.rule == "risk")


def test_the_comparison_is_of_the_other_part(calibrate, split):
    arguments = ("--split", split, "--rule", "target-accuracy", "--max-loss", 20, "--compare", "test")
    outcome = calibrate(*arguments, "--json")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    results = [RuleResult.from_dict(line["comparison"]) for line in lines[1:]]
    assert {"full depth", "bundle", "sweep", "budget", "percentile", "msdnet"} <= {result.rule for result in results}
    text = calibrate(*arguments).out
    assert (
        "on part test, 12 images that no rule was chosen on:" in text
        and "sweep, pruned" not in text.split("exits in %")[0]
    )


def test_evaluate_takes_a_record(pi_dynn, calibrate, dataset, tiny_bundle_path, record_path, tmp_path):
    record = load_record(record_path)
    arguments = ("evaluate", dataset, "--bundle", tiny_bundle_path, "--json", "--calibration")
    result = Evaluation.from_dict(json.loads(pi_dynn(*arguments, record_path).out))
    assert result.acc1 == pytest.approx(record.accuracy) and result.thresholds == record.thresholds
    assert result.mean_macs == pytest.approx(record.mean_cost)
    other = tmp_path / "margin.json"
    assert calibrate("--rule", "target-accuracy", "--max-loss", 20, "--score", "margin", "-o", other).status == 0
    result = Evaluation.from_dict(json.loads(pi_dynn(*arguments, other).out))
    assert result.acc1 == pytest.approx(load_record(other).accuracy)


def test_classify_takes_a_record_of_the_gate_only(pi_dynn, calibrate, photographs, tiny_bundle_path, record_path):
    record = load_record(record_path)
    closed = CalibrationRecord.from_dict(record.to_dict() | {"thresholds": [2.0] * 3})
    save_record(record_path, closed)
    arguments = ("classify", photographs, "--bundle", tiny_bundle_path, "--json", "--calibration", record_path)
    lines = [json.loads(line) for line in pi_dynn(*arguments).out.splitlines()]
    assert all(line["exit_index"] == 3 for line in lines[:-1])
    save_record(record_path, CalibrationRecord.from_dict(record.to_dict() | {"score": "margin"}))
    outcome = pi_dynn(*arguments)
    assert outcome.status == 1 and "calibrate with --score gate, or build the score into a bundle" in outcome.err


def test_a_record_for_another_bundle_is_refused(pi_dynn, dataset, photographs, record_path):
    for command in (("classify", photographs), ("evaluate", dataset)):
        outcome = pi_dynn(*command, "--calibration", record_path)  # with the embedded bundle
        assert outcome.status == 1 and len(outcome.err.strip().splitlines()) == 1
        assert "was made for the bundle" in outcome.err and "calibrate this bundle" in outcome.err


def test_a_budget_picks_the_record_that_fits(pi_dynn, photographs, tiny_bundle_path, record_path, tmp_path):
    record = load_record(record_path).to_dict()
    curve = [
        OperatingPoint([0.0, 0.0, 0.0], 0.5, 0.004, [1.0, 0, 0, 0], []).to_dict(),
        OperatingPoint([2.0, 2.0, 2.0], 0.9, 0.020, [0, 0, 0, 1.0], []).to_dict(),
    ]
    folder = tmp_path / "records"
    timed = CalibrationRecord.from_dict(record | {"cost_unit": "s", "curve": curve})
    save_record(folder / "timed.json", timed)
    save_record(folder / "counted.json", CalibrationRecord.from_dict(record))
    arguments = ("classify", photographs, "--bundle", tiny_bundle_path, "--json", "--calibration", folder)
    for budget_ms, exit_index in ((10, 0), (25, 3)):
        lines = [json.loads(line) for line in pi_dynn(*arguments, "--budget-ms", budget_ms).out.splitlines()]
        assert {line["exit_index"] for line in lines[:-1]} == {exit_index}
    outcome = pi_dynn(*arguments, "--budget-ms", 1)
    assert outcome.status == 1 and "below the least on record" in outcome.err
    outcome = pi_dynn(*arguments, "--budget-mj", 1)
    assert outcome.status == 1 and "calibrate with measured costs" in outcome.err


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("classify", ("--calibration", "x", "--threshold", 0.5), "leave the others out"),
        ("classify", ("--adaptive",), "give --calibration or a budget"),
        ("classify", ("--budget-ms", 5, "--adaptive", "--batch-size", 2), "--batch-size 1"),
        ("classify", ("--budget-ms", 5, "--budget-mj", 5), "only one of"),
        ("calibrate", ("--rule", "budget", "--budget-ms", 5, "--budget-macs", 5), "only one of"),
        ("calibrate", ("--rule", "budget", "--budget-mj", 5), "give --costs"),
        ("calibrate", ("--rule", "budget", "--budget-ms", 5, "--cost-unit", "mj"), "contradict"),
        ("calibrate", ("--rule", "sweep", "--grid", "0.5,x"), "expected numbers"),
        ("calibrate", ("--rule", "sweep", "--compare", "test"), "needs a --split"),
    ],
)
def test_options_that_contradict_each_other(pi_dynn, command, arguments, message, dataset, tiny_bundle_path):
    outcome = pi_dynn(command, dataset, "--bundle", tiny_bundle_path, *arguments)
    assert outcome.status == 2 and message in outcome.err


def test_a_budget_without_records(pi_dynn, photographs, tiny_bundle_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = pi_dynn("classify", photographs, "--bundle", tiny_bundle_path, "--budget-ms", 2)
    assert outcome.status == 1 and len(outcome.err.splitlines()) == 1
    assert "there is no folder 'calibration' here: name a record with --calibration" in outcome.err


def test_bad_input_is_one_line(calibrate, pi_dynn, tiny_bundle_path, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no latency model is kept there
    for arguments, message in (
        (("--rule", "target-accuracy", "--target-accuracy", 100), "full depth has"),
        (("--rule", "risk", "--epsilon", 0.5), "24 images are too few to promise at most 0.5 points"),
        (("--rule", "budget", "--budget-macs", 0.001), "leaving at the first exit costs"),
        (("--rule", "budget", "--budget-ms", 5), "fit one with `pi-dynn profile --fit`"),
    ):
        outcome = calibrate(*arguments)
        assert outcome.status == 1 and message in outcome.err and len(outcome.err.strip().splitlines()) == 1
    for label in "ab":
        (tmp_path / "few" / label).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "few" / label / "0.png")
    arguments = ("--bundle", tiny_bundle_path, "--rule", "sweep")
    outcome = pi_dynn("calibrate", tmp_path / "few", *arguments)
    assert outcome.status == 1 and "2 images for 5 classes" in outcome.err
    (tmp_path / "one" / "a").mkdir(parents=True)
    for i in range(6):
        Image.new("RGB", (40, 40), (40 * i, 0, 0)).save(tmp_path / "one" / "a" / f"{i}.png")
    outcome = pi_dynn("calibrate", tmp_path / "one", *arguments)
    assert outcome.status == 1 and "all 6 images are of class" in outcome.err


def test_plots_are_saved(calibrate, split, tiny_bundle_path, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ("--split", split, "--rule", "sweep", "--compare", "test", "--static", tiny_bundle_path)
    outcome = calibrate(*arguments, "--plot", tmp_path / "plots")
    assert outcome.status == 0 and "plots saved in" in outcome.err
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {
        f"{name}.{kind}" for name in ("trade-off", "exits", "reliability", "sweep") for kind in ("svg", "png")
    }


def test_a_score_and_temperatures_are_built_into_a_bundle(
    pi_dynn, calibrate, dataset, photographs, tiny_bundle_path, tmp_path
):
    built, path = tmp_path / "entropy.pt", tmp_path / "entropy.json"
    engine = ("--engine", "fp32")  # two bundles may be fastest on different ones
    outcome = calibrate("--rule", "msdnet", "--score", "entropy", "--fold", built, "-o", path, *engine)
    assert outcome.status == 0 and "leaving by its entropy" in outcome.err
    record = load_record(path)
    assert record.bundle == load_bundle(built).sha256 and record.score == "gate" and set(record.temperatures) == {1.0}
    result = Evaluation.from_dict(json.loads(pi_dynn("evaluate", dataset, "--bundle", built, "--json", *engine).out))
    assert result.thresholds == record.thresholds and result.acc1 == pytest.approx(record.accuracy)
    arguments = ("classify", photographs, "--bundle", built, "--json", "--calibration", path)
    assert pi_dynn(*arguments).status == 0
    outcome = calibrate("--rule", "msdnet", "--score", "patience", "--fold", built)
    assert outcome.status == 1 and "a gate sees its own exit only" in outcome.err


def test_networks_without_exits_are_bundles_or_figures(tiny_bundle_path):
    from pi_dynn.cli.calibrate import _static

    (network,) = _static(["mobilenet=71.5@300"], None, None)
    assert (network.name, network.accuracy, network.cost) == ("mobilenet", 0.715, 3e8)


def test_a_bundle_that_rejects_is_built_and_says_so(pi_dynn, dataset, tiny_bundle_path, photographs, tmp_path):
    parts = {"train": 0.4, "calibrate": 0.4, "test": 0.2}
    split, built = tmp_path / "split.json", tmp_path / "rejecting.pt"
    few, dataset = dataset, shutil.copytree(dataset, tmp_path / "all")
    for label in "abcde":
        shutil.copytree(sorted(few.iterdir())[0], dataset / label, dirs_exist_ok=True)

    def calibrate(*arguments, data=dataset):
        return pi_dynn("calibrate", data, "--bundle", tiny_bundle_path, "--threads", 1, *arguments)

    save_split(split, stratified_split(open_image_folder(dataset), parts, 0), 0)
    arguments = ("--split", split, "--rule", "sweep", "--reject", 20)
    outcome = calibrate(*arguments)
    assert outcome.status == 2 and "--fold to build it in" in outcome.err
    other = tmp_path / "few.json"
    save_split(other, stratified_split(open_image_folder(few), parts, 0), 0)
    outcome = calibrate("--split", other, *arguments[2:], "--fold", built, data=few)
    assert outcome.status == 1 and "has no image to learn its usual answer from" in outcome.err
    outcome = calibrate(*arguments, "--fold", built)
    assert outcome.status == 0 and "at most 20 %" in outcome.err
    rejection = load_bundle(built).manifest.rejection
    assert rejection.alpha == 0.2 and np.shape(rejection.class_means) == (4, 5, 5)
    assert "none of these: " in pi_dynn("evaluate", dataset, "--bundle", built, "--threads", 1).out
    strict = tmp_path / "strict.pt"
    load_bundle(built).with_manifest(rejection=replace(rejection, limit=1.5)).save(strict)
    text = ("classify", photographs, "--bundle", strict, "--threads", 1)
    assert "(nearest: " in pi_dynn(*text).out
    assert "none of these" not in pi_dynn(*text, "--accept-all").out
    *answers, _ = [json.loads(line) for line in pi_dynn(*text, "--json").out.splitlines()]
    assert {answer["accepted"] for answer in answers} == {False} and answers[0]["similarity"] < 1.5

"""`pi-dynn evaluate` on corrupted and hard images, and its comparison of rules."""

import json
import sys

import pytest
from PIL import Image

from pi_dynn.calibrate.records import RuleResult
from pi_dynn.cli.options import SessionChoice
from pi_dynn.data.folders import open_image_folder, save_split, stratified_split
from pi_dynn.evaluate.records import Evaluation, RobustnessResult

WNIDS = ["n01440764", "n01443537", "n01484850", "n01491361", "n01494475"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for number, label in enumerate("abc"):
        (root / label).mkdir()
        for i in range(4):
            Image.effect_noise((40, 40), 20 + 30 * i).convert("RGB").rotate(40 * number).save(root / label / f"{i}.png")
    return root


@pytest.fixture
def evaluate(pi_dynn, tiny_bundle_path):
    return lambda *arguments: pi_dynn("evaluate", *arguments, "--bundle", tiny_bundle_path, "--threads", 1)


def test_corruptions_on_the_fly(evaluate, dataset):
    pytest.importorskip("imagecorruptions", exc_type=ImportError)
    arguments = (dataset, "--corrupt", "gaussian_noise,contrast", "--severity", "5")
    outcome = evaluate(*arguments, "--json")
    result = RobustnessResult.from_dict(json.loads(outcome.out))
    assert [(one.corruption, one.severity) for one in result.conditions] == [
        (None, None),
        ("gaussian_noise", 5),
        ("contrast", 5),
    ]
    plain = Evaluation.from_dict(json.loads(evaluate(dataset, "--json").out))
    assert result.conditions[0].acc1 == plain.acc1 and result.conditions[0].mean_macs == plain.mean_macs
    assert result.summary.relative is None and len(result.summary.errors) == 2
    assert "mean corruption error" in evaluate(*arguments).out


def test_a_robustness_set_with_some_of_the_classes(evaluate, tmp_path):
    for wnid in WNIDS[:2]:
        (tmp_path / "r" / wnid).mkdir(parents=True)
        Image.effect_noise((40, 40), 60).convert("RGB").save(tmp_path / "r" / wnid / "0.png")
    (tmp_path / "wnids.txt").write_text("\n".join(WNIDS))
    arguments = (tmp_path / "r", "--layout", "imagenet-r", "--wnids", tmp_path / "wnids.txt")
    assert "copy the rest" in evaluate(*arguments).err
    result = RobustnessResult.from_dict(json.loads(evaluate(*arguments, "--partial", "--json").out))
    assert result.layout == "imagenet-r" and result.conditions[0].images == 2 and result.summary is None
    outcome = evaluate(tmp_path / "r", "--layout", "imagenet-r")
    assert outcome.status == 1 and "does not begin with a WordNet id" in outcome.err


def test_rules_at_equal_cost(evaluate, dataset, tmp_path):
    split = tmp_path / "split.json"
    save_split(split, stratified_split(open_image_folder(dataset), {"calibrate": 0.5, "test": 0.5}, 0), 0)
    arguments = (dataset, "--split", split, "--rules", "--all-views")
    first, *others = [json.loads(line) for line in evaluate(*arguments, "--json").out.splitlines()]
    results = [RuleResult.from_dict(line["comparison"]) for line in others]
    assert Evaluation.from_dict(first).images == 6
    assert {"full depth", "bundle", "sweep", "budget", "percentile", "msdnet"} <= {one.rule for one in results}
    assert all(one.gain == pytest.approx(0.0) for one in results if one.rule == "sweep")
    text = evaluate(*arguments).out
    assert (
        "rules at equal cost, chosen on 6 images of part calibrate;" in text
        and "one of these 6 images is 16.67 points" in text
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--corrupt", "fog", "--severity", "6"), "expected numbers of 1 to 5"),
        (("--corrupt", "fog", "--rules"), "one at a time"),
        (("--rules",), "needs a --split"),
        (("--layout", "imagenet-a", "--corrupt", "fog"), "a data set of its own"),
    ],
)
def test_options_that_contradict_each_other(evaluate, dataset, arguments, message):
    outcome = evaluate(dataset, *arguments)
    assert outcome.status == 2 and message in outcome.err


def test_a_missing_library_is_said_before_anything_is_loaded(evaluate, dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    monkeypatch.setattr(SessionChoice, "open", lambda self: pytest.fail("the bundle was loaded"))
    outcome = evaluate(dataset, "--corrupt", "all")
    assert outcome.status == 1 and outcome.err.startswith("pi-dynn: error: corrupting images needs imagecorruptions")
    assert len(outcome.err.splitlines()) == 1 and "[robustness]" in outcome.err


def test_a_corruption_that_is_none(evaluate, dataset):
    outcome = evaluate(dataset, "--corrupt", "rain")
    assert outcome.status == 1 and "no corruption 'rain'" in outcome.err

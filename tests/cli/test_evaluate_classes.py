"""`pi-dynn evaluate` class by class."""

import json

import pytest
from PIL import Image

from pi_dynn.evaluate.records import ClassResult, Evaluation


@pytest.fixture
def dataset(tmp_path):
    for number, label in enumerate("abc"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(3):
            Image.effect_noise((40, 40), 20 + 40 * i + number).convert("RGB").save(
                tmp_path / "data" / label / f"{i}.png"
            )
    return tmp_path / "data"


@pytest.fixture
def evaluate(pi_dynn, dataset, tiny_bundle_path):
    return lambda *options: pi_dynn("evaluate", dataset, "--bundle", tiny_bundle_path, "--threads", 1, *options)


def test_text_comes_after_what_was_printed_before(evaluate):
    plain = evaluate()
    outcome = evaluate("--per-class")
    assert outcome.status == 0 and outcome.out.startswith(plain.out)
    added = outcome.out.removeprefix(plain.out).splitlines()
    assert added[1].split()[:4] == ["class", "images", "right", "accuracy"]
    assert [line.split()[:2] for line in added[2:5]] == [["a", "3"], ["b", "3"], ["c", "3"]]


def test_json_has_a_record_of_its_own(evaluate, dataset):
    (dataset / "a" / "0.png").write_bytes(b"")
    outcome = evaluate("--per-class", "--json")
    first, second = map(json.loads, outcome.out.splitlines())
    whole, result = Evaluation.from_dict(first), ClassResult.from_dict(second["classes"])
    assert first == json.loads(evaluate("--json").out)
    assert sum(row.right for row in result.classes) == round(whole.acc1 * whole.images)
    assert len(result.wrong) == whole.images - round(whole.acc1 * whole.images)
    assert all(one.path.split("/")[-2] == one.label != one.answer for one in result.wrong)
    assert str(dataset / "a" / "0.png") not in [one.path for one in result.wrong]


def test_plot_and_wrong_pictures(evaluate, tmp_path):
    pytest.importorskip("matplotlib")
    places = ("--plot", tmp_path / "plots", "--wrong", tmp_path / "wrong")
    outcome = evaluate(*places)
    assert outcome.status == 0 and outcome.out == evaluate().out
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"confusion.svg", "confusion.png"}
    links = list((tmp_path / "wrong").rglob("*.png"))
    assert f"links to {len(links)} wrong pictures sorted into" in outcome.err and links
    assert all(link.resolve().parent.name == link.parent.parent.name for link in links)
    again = evaluate(*places)
    assert (again.status, again.out) == (1, "") and "not empty" in again.err


def test_only_of_images_as_they_are(evaluate, tmp_path):
    for options in (("--per-class",), ("--plot", tmp_path / "p"), ("--wrong", tmp_path / "w")):
        outcome = evaluate("--corrupt", "noise", *options)
        assert outcome.status == 2 and "for images as they are" in outcome.err

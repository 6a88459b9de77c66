"""What a bundle says of itself, without torch and without running anything in it."""

import json
from dataclasses import replace

import pytest

from pi_dynn.calibrate.records import CalibrationRecord, save_record
from pi_dynn.errors import BundleError
from pi_dynn.runtime.info import bundle_info
from pi_dynn.runtime.manifest import Manifest
from pi_dynn.runtime.records import TrainingStage
from pi_dynn.runtime.text import info_text
from tests.runtime.test_bundle import DAMAGES, with_manifest
from tests.test_layering import modules_after

RECORD = CalibrationRecord(
    *("risk", "gate", [0.5] * 3, [1, 4, 8, 11], [0.25] * 4, 0.9, 0.95, 1.2e6, [1e6, 2e6, 3e6, 4e6], "macs", 40),
    bundle="",
    dataset="ucm",
    split=None,
    part=None,
    settings={},
    curve=[],
)


def test_everything_in_the_manifest_is_told(tiny_bundle, tiny_bundle_path):
    info, manifest = bundle_info(tiny_bundle_path), tiny_bundle.manifest
    assert (info.sha256, info.size_bytes) == (tiny_bundle.sha256, len(tiny_bundle.data))
    assert [one.block_index for one in info.exits] == manifest.blocks
    assert [one.macs for one in info.exits] == manifest.macs
    assert [one.threshold for one in info.exits] == [*manifest.thresholds, None]
    assert (info.labels, info.model, info.precision) == (manifest.labels, manifest.model, manifest.precision)
    assert info.preprocess == json.loads(json.dumps(manifest.preprocess.to_dict()))
    assert info.parameters == manifest.notes["parameters"] and "parameters" not in info.notes
    assert type(info).from_dict(json.loads(json.dumps(info.to_dict()))) == info
    assert Manifest.SCHEMA == 1, "the manifest that info reads"


def test_the_embedded_bundle_in_text(monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    lines = info_text(bundle_info(None)).splitlines()
    assert lines[1].split()[:2] == ["network", "gfnet_12_192,"]
    text = "\n".join(lines)
    assert "unlike its classes, and for 5 % or fewer" in text
    assert "21: agricultural, airplane" in text and "exits on ucm" in text and "exit 5 of 5" in text
    assert max(map(len, lines)) <= 90


def test_no_torch_is_needed():
    assert "torch" not in modules_after("from pi_dynn.runtime.info import bundle_info; bundle_info(None)")
    assert "torch" not in modules_after("import pi_dynn.cli.info, pi_dynn.runtime.text")


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_what_is_no_bundle_is_one_line(tiny_bundle, tmp_path, damage, reason):
    path = tmp_path / "bad.pt"
    path.write_bytes(damage(tiny_bundle))
    with pytest.raises(BundleError, match=reason) as caught:
        bundle_info(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_records_are_those_of_the_bundle(tiny_bundle, tiny_bundle_path, tmp_path):
    save_record(tmp_path / "mine.json", replace(RECORD, bundle=tiny_bundle.sha256))
    save_record(tmp_path / "other.json", replace(RECORD, bundle="ab" * 32))
    (tmp_path / "damaged.json").write_text(json.dumps(RECORD.to_dict() | {"costs": [1.0]}))
    (tmp_path / "none.json").write_text("{")
    notes: list[str] = []
    info = bundle_info(tiny_bundle_path, [tmp_path, tmp_path / "mine.json", tmp_path / "gone"], notes.append)
    (one,) = info.calibration
    assert (one.file, one.rule, one.mean_cost) == (str(tmp_path / "mine.json"), "risk", 1.2e6)
    assert len(notes) == 1 and "damaged.json: thresholds, exits and costs do not fit" in notes[0]
    assert "mine.json: rule risk, score gate, accuracy 90.00 % at a mean cost of 1.2 M" in info_text(info)


def test_runs_of_one_stage_are_told_once(tiny_bundle, tmp_path):
    several = {"stage": "distill", "data": {"ucm": "ab", "aid": "cd", "split_sha256": "ef"}, "device": "cpu"}
    alone = {"stage": "exits", "data": {"root": "ucm", "files_sha256": "ab"}}
    path = tmp_path / "trained.pt"
    path.write_bytes(with_manifest(tiny_bundle, lambda m: m.update(notes={"stages": [several, several, alone, {}]})))
    info = bundle_info(path)
    assert info.training == [
        TrainingStage("distill", 2, ["aid", "ucm"]),
        TrainingStage("exits", 1, ["ucm"]),
        TrainingStage("unnamed", 1, []),
    ]
    assert "distill (2 runs) on aid, ucm; exits on ucm; unnamed" in info_text(info)


@pytest.mark.parametrize("notes", [{"stages": 3}, {"stages": ["a"]}, {"parameters": "many"}, {"licence": ["MIT"]}])
def test_odd_notes_are_one_line_too(tiny_bundle, tmp_path, notes):
    path = tmp_path / "odd.pt"
    path.write_bytes(with_manifest(tiny_bundle, lambda m: m.update(notes=notes)))
    with pytest.raises(BundleError, match=f"odd.pt: .*{next(iter(notes))}"):
        bundle_info(path)


@pytest.mark.parametrize("name", ["thresholds", "macs"])
@pytest.mark.parametrize("change", [lambda values: values[:-1], lambda values: [*values, values[-1]]])
def test_as_many_thresholds_and_costs_as_exits(tiny_bundle, tmp_path, name, change):
    path = tmp_path / "odd.pt"
    path.write_bytes(with_manifest(tiny_bundle, lambda m: m.update({name: change(m[name])})))
    with pytest.raises(BundleError, match="3 exits, [234] thresholds and [345] costs"):
        bundle_info(path)


def test_notes_and_licence_are_shown(tiny_bundle, tmp_path):
    path, notes = (
        tmp_path / "told.pt",
        {
            "licence": "CC-BY-4.0",
            "made_from": "abc",
            "calibration": {"score": "gate", "kept_back": {}, "temperatures": [0.58523, 1.0]},
        },
    )
    many = [f"class{i}" for i in range(1000)]
    path.write_bytes(with_manifest(tiny_bundle, lambda m: m.update(notes=notes, labels=many, thresholds=[2.0] * 3)))
    text = info_text(bundle_info(path))
    assert "licence            CC-BY-4.0" in text and "made from          abc" in text
    assert "calibration        score gate; kept back none; temperatures 0.585, 1\n" in text
    assert "1,000: class0" in text and "and 940 more (--json has all)" in text and "disabled" in text
    assert "no calibration record found" in text

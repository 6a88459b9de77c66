"""`pi-dynn info` from end to end."""

import json
import shutil
from pathlib import Path

import pytest

from pi_dynn import load_bundle
from pi_dynn.runtime.records import BundleInfo

SAVED = Path(__file__).parent.parent / "data" / "saved_0_1"


def test_text_of_the_embedded_bundle_and_of_a_file(pi_dynn, tiny_bundle_path):
    outcome = pi_dynn("info")
    assert (outcome.status, outcome.err) == (0, "") and load_bundle().sha256 in outcome.out
    outcome = pi_dynn("info", tiny_bundle_path)
    assert outcome.status == 0 and "5: a, b, c, d, e" in outcome.out and "exit 4 of 4" in outcome.out


def test_json_is_one_record(pi_dynn, tiny_bundle, tiny_bundle_path):
    outcome = pi_dynn("info", tiny_bundle_path, "--json")
    info = BundleInfo.from_dict(json.loads(outcome.out))
    assert (info.file, info.sha256, info.labels) == (str(tiny_bundle_path), tiny_bundle.sha256, list("abcde"))


def test_records_beside_the_bundle_or_in_a_place_named(pi_dynn, tmp_path):
    for name in ("bundle.pt", "calibration.json"):
        shutil.copy(SAVED / name, tmp_path)
    assert f"record {tmp_path / 'calibration.json'}: rule budget" in pi_dynn("info", tmp_path / "bundle.pt").out
    (tmp_path / "calibration.json").rename(tmp_path / "moved")
    assert "no calibration record found" in pi_dynn("info", tmp_path / "bundle.pt").out
    outcome = pi_dynn("info", tmp_path / "bundle.pt", "--calibration", tmp_path / "moved")
    assert f"record {tmp_path / 'moved'}: rule budget" in outcome.out


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "not a pi_dynn bundle"), (b"PK", "not a pi_dynn bundle"), (None, "no such bundle")]
)
def test_what_is_no_bundle_is_one_line(pi_dynn, tmp_path, content, reason):
    path = tmp_path / "file.pt"
    if content is not None:
        path.write_bytes(content)
    outcome = pi_dynn("info", path)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith(f"pi-dynn: error: {path}: ") and reason in outcome.err
    assert outcome.err.count("\n") == 1


def test_an_onnx_bundle_too(pi_dynn, tiny_bundle_path, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = tmp_path / "tiny.onnx.zip"
    outcome = pi_dynn("export", tiny_bundle_path, "--format", "onnx", "--precision", "fp32", "-o", path)
    assert outcome.status == 0, outcome.err
    outcome = pi_dynn("info", path)
    assert "fp32 (onnx)" in outcome.out and "5: a, b, c, d, e" in outcome.out

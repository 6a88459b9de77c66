"""`pi-dynn classify` from end to end."""

import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from pi_dynn.records import Prediction
from tests.data.test_decode import BAD_FILES


@pytest.fixture
def classify(pi_dynn, tiny_bundle_path):
    return lambda *arguments, **options: pi_dynn(
        "classify", "--bundle", tiny_bundle_path, "--threads", 1, *arguments, **options
    )


def untimed(text: str) -> str:
    """Text without what differs between runs: durations and rates."""
    return re.sub(r" +\d[\d,.]* (ms|a second)", r" # \1", text)


def test_golden_text(classify, photographs):
    outcome = classify(photographs, "--no-exit")
    assert outcome.status == 0 and outcome.err == ""
    lines = untimed(outcome.out).splitlines()
    assert len(lines) == 8
    for i, line in enumerate(lines[:6]):
        assert re.fullmatch(rf"[a-e] +\d\d\.\d %  exit 4 of 4 \(block 11\) # ms  photograph{i}\.jpg", line)
    assert lines[6:] == [
        "6 images: # a second with decoding, # ms each in the network (fp32, 1 thread)",
        "left after block 11 100 %",
    ]


def test_json_lines_and_nothing_else(classify, photographs):
    outcome = classify(photographs, "--json", "--threshold", 0.5)
    objects = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.status == 0 and outcome.err == ""
    assert set(objects[0]) == {"path", "kind", "schema", *Prediction.__dataclass_fields__} - {"top"}
    assert set(objects[-1]) == {"summary"}
    summary = objects[-1]["summary"]
    assert summary["images"] == sum(summary["exit_counts"]) == len(objects) - 1 == 6
    assert summary["interrupted"] is False
    assert [objects[0]["kind"], summary["kind"]] == ["prediction", "classify summary"]


def test_top_and_csv(classify, photographs, tmp_path):
    path = tmp_path / "answers.csv"
    outcome = classify(photographs / "photograph1.jpg", "--top", 3, "--csv", path)
    assert outcome.out.count("\n  ") == 2
    (row,) = csv.DictReader(path.read_text().splitlines())
    assert row["path"].endswith("photograph1.jpg") and row["label"] in "abcde" and row["error"] == ""
    answers = [json.loads(line) for line in classify(photographs, "--top", 2, "--json").out.splitlines()]
    assert [label for label, _ in answers[0]["top"]][0] == answers[0]["label"]


def test_a_full_disk_is_one_line_that_names_the_file(classify, photographs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "answers.csv"
    monkeypatch.setattr("pi_dynn.files.os.fsync", full)
    outcome = classify(photographs, "--csv", path)
    assert outcome.status == 1 and len(outcome.out.splitlines()) >= 6  # the answers were printed all the same
    assert outcome.err == f"pi-dynn: error: {path}: No space left on device\n" and not path.exists()


def test_every_bad_input_is_answered_and_the_rest_too(classify, photographs, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(photographs, folder)
    for name, (content, _) in BAD_FILES.items():
        (folder / f"bad {name}.jpg").write_bytes(content)
    (tmp_path / "empty").mkdir()
    missing = tmp_path / "missing.jpg"
    outcome = classify(folder, tmp_path / "empty", missing, "*.nothing", "--json")
    assert outcome.status == 1
    *lines, summary = [json.loads(line) for line in outcome.out.splitlines()]
    assert [set(line) == {"path", "error"} for line in lines].count(True) == len(BAD_FILES) + 3
    assert summary["summary"]["images"] == 6
    assert summary["summary"]["failed"] == len(BAD_FILES) + 3
    errors = outcome.err.splitlines()
    assert len(errors) == len(BAD_FILES) + 3
    assert all(line.startswith("pi-dynn: error: ") for line in errors)
    for name in BAD_FILES:
        assert sum(f"bad {name}.jpg" in line for line in errors) == 1
    assert sum(str(missing) in line for line in errors) == 1


def test_odd_but_good_pictures(classify, tmp_path):
    picture = Image.effect_noise((50, 40), 90)
    exif = Image.Exif()
    exif[0x0112] = 8
    for name, image, options in (
        ("deep.png", Image.fromarray((torch.rand(40, 50) * 65535).to(torch.int32).numpy().astype("uint16")), {}),
        ("palette.png", picture.convert("P"), {}),
        ("cmyk.jpg", picture.convert("CMYK"), {}),
        ("alpha.png", picture.convert("RGBA"), {}),
        ("moving.gif", picture, {"save_all": True, "append_images": [picture.rotate(90)]}),
        ("turned.jpg", picture, {"exif": exif}),
    ):
        image.save(tmp_path / name, **options)
    outcome = classify(tmp_path)
    assert outcome.status == 0 and len(outcome.out.splitlines()) == 8


def test_pictures_of_other_things_are_told_what_the_bundle_knows(pi_dynn, photographs):
    note = "Note: most of these are like none of the 21 classes that the bundle knows (`pi-dynn info`)"
    other = photographs / "photograph1.jpg"
    outcome = pi_dynn("classify", other, "--threads", 1)
    assert outcome.out.startswith("none of these") and outcome.err.startswith(note)
    assert len(outcome.err.splitlines()) == 1
    for more in ((other, "--json"), (other, "--accept-all"), ()):  # the samples are what it knows
        assert pi_dynn("classify", *more, "--threads", 1).err == ""


def test_list_on_stdin(classify, photographs):
    listing = "".join(f"{photographs}/photograph{i}.jpg\n" for i in (4, 2))
    outcome = classify("-", "--json", stdin=listing)
    assert [line["path"][-5] for line in map(json.loads, outcome.out.splitlines()[:2])] == ["4", "2"]


def test_batches_and_single_images_agree(classify, photographs):
    def answers(*options):
        lines = [json.loads(line) for line in classify(photographs, "--json", *options).out.splitlines()[:-1]]
        return [(line["path"], line["label"], line["exit_index"]) for line in lines]

    assert answers() == answers("--batch-size", 4)


def test_deadline_of_zero_takes_the_first_exit(classify, photographs):
    outcome = classify(photographs, "--deadline-ms", 0, "--threshold", 1.0, "--json")
    assert json.loads(outcome.out.splitlines()[-1])["summary"]["exit_counts"] == [6, 0, 0, 0]


def test_thresholds_one_by_one(classify, photographs):
    outcome = classify(photographs, "--thresholds", "2,0,2", "--json")
    assert json.loads(outcome.out.splitlines()[-1])["summary"]["exit_counts"] == [0, 6, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "0.5", "--no-exit"], "only one of"),
        (["--thresholds", "0.5,x"], "numbers separated by commas"),
        (["--deadline-ms", "5", "--batch-size", "2"], "--batch-size 1"),
        (["--engine", "tpu"], "tpu"),
        (["--nonsense"], "--nonsense"),
        (["--threads", "0"], "threads"),
    ],
)
def test_usage_errors(classify, arguments, message):
    outcome = classify(*arguments)
    assert outcome.status == 2 and message in outcome.err and outcome.out == ""


def test_failures_are_one_line(pi_dynn, classify, tmp_path, photographs):
    (tmp_path / "bad.pt").write_bytes(b"no bundle")
    for arguments in (
        ("classify", "--bundle", tmp_path / "bad.pt"),
        ("classify", "--bundle", tmp_path / "none.pt"),
        ("evaluate", tmp_path / "none"),
        ("export", tmp_path / "none.pth", "-o", tmp_path / "x.pt"),
    ):
        outcome = pi_dynn(*arguments)
        assert outcome.status == 1
        assert outcome.err.startswith("pi-dynn: error: ") and outcome.err.count("\n") == 1
    outcome = classify(photographs, "--thresholds", "0.5")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1) and "3 exits" in outcome.err


def test_control_c_prints_what_there_is(tiny_bundle_path, photographs, tmp_path):
    """A real process, interrupted while it waits for more paths."""
    command = [sys.executable, "-m", "pi_dynn.cli", "classify", "-", "--json", "--bundle", str(tiny_bundle_path)]
    csv_path = tmp_path / "answers.csv"
    process = subprocess.Popen(
        [*command, "--csv", str(csv_path), "--engine", "fp32"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    for i in range(6):
        process.stdin.write(f"{photographs}/photograph{i}.jpg\n")
    process.stdin.flush()
    first = [process.stdout.readline() for _ in range(4)]  # the last two are decoded and wait for a next path
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    rest, error = process.communicate(timeout=60)
    lines = [json.loads(line) for line in [*first, *rest.splitlines()]]
    assert process.returncode == 130, error
    assert lines[-1]["summary"]["interrupted"] is True
    assert lines[-1]["summary"]["images"] == len(lines) - 1 >= 1
    assert len(csv_path.read_text().splitlines()) == len(lines)


def test_a_reader_that_leaves_early_is_no_error_and_loses_no_row(tiny_bundle_path, photographs, tmp_path):
    command = f"{sys.executable} -m pi_dynn.cli classify {photographs} --bundle {tiny_bundle_path} --engine fp32"
    rows = tmp_path / "answers.csv"
    for line in (f"{command} | head -1", f"{command} --csv {rows} | true"):
        result = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True)
        assert result.stderr == ""
    assert len(rows.read_text().splitlines()) == 7

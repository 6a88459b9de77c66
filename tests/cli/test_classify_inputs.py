"""`pi-dynn classify` of what does not lie in a folder: an image on stdin, addresses, pictures of many pixels."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.image_server import image_server, jpeg


@pytest.fixture(scope="module")
def server():
    with image_server() as address:
        yield address


@pytest.fixture
def classify(pi_dynn, tiny_bundle_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return lambda *arguments, **options: pi_dynn(
        "classify", "--bundle", tiny_bundle_path, "--threads", 1, "--json", *arguments, **options
    )


def lines_of(outcome) -> list[dict]:
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_an_image_on_stdin(classify, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    first, second, _ = lines_of(classify("-", tmp_path / "a.jpg", stdin=jpeg()))
    assert (first["path"], first["label"], first["probability"]) == ("-", second["label"], second["probability"])
    outcome = classify("-", stdin=jpeg()[:300])
    assert outcome.status == 1 and "pi-dynn: error: standard input: damaged or truncated" in outcome.err


def test_an_image_through_a_real_pipe(tiny_bundle_path, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    command = f"{sys.executable} -m pi_dynn.cli classify - --bundle {tiny_bundle_path} --engine fp32"
    done = subprocess.run(["bash", "-c", f"cat {tmp_path}/a.jpg | {command}"], capture_output=True, text=True)
    assert done.stderr == "" and "  -\n1 image: " in done.stdout


def test_addresses_as_arguments_and_in_a_list(classify, server):
    good, bad = f"{server}/photo.jpg", f"{server}/none.jpg"
    outcome = classify(good, bad, "-", stdin=f"{good}\n")
    answered, error, again, summary = lines_of(outcome)
    assert outcome.status == 1 and summary["summary"]["failed"] == 1
    assert answered["path"] == again["path"] == good and answered["label"] == again["label"]
    assert error["path"] == bad and error["error"].startswith(f"{bad}: the server answers 404")


def test_many_pixels_and_a_limit_of_ones_own(classify, tmp_path, monkeypatch):
    Image.new("L", (400, 300)).save(tmp_path / "a.png")
    assert classify(tmp_path / "a.png").status == 0
    monkeypatch.setenv("PI_DYNN_MAX_PIXELS", "100000")
    outcome = classify(tmp_path / "a.png")
    assert outcome.status == 1 and "allow more with PI_DYNN_MAX_PIXELS=PIXELS" in outcome.err


def test_a_cold_start_needs_a_file(pi_dynn, tiny_bundle_path):
    options = ("--bundle", tiny_bundle_path, "--threads", 1, "--n", 5, "--cold-start")
    outcome = pi_dynn("benchmark", "-", *options, stdin=jpeg())
    assert outcome.status == 2 and "give the image as a file" in outcome.err


def test_a_pipe_is_one_line_and_the_others_are_answered(pi_dynn, photographs, tmp_path):
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    outcome = pi_dynn("classify", pipe, sorted(photographs.glob("*.jpg"))[0])
    assert outcome.status == 1 and "is a pipe" in outcome.err and "1 image, 1 failed" in outcome.out + outcome.err


def test_a_link_to_its_own_folder_is_not_followed(pi_dynn, photographs, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(photographs, folder)
    (folder / "again").symlink_to(".")
    (folder / "other").symlink_to(photographs)  # a link elsewhere is
    outcome = pi_dynn("classify", folder, "--json")
    images = sum("label" in json.loads(line) for line in outcome.out.splitlines())
    assert images == 2 * len(list(photographs.glob("*.jpg")))


def test_a_folder_that_cannot_be_read_ends_nothing(pi_dynn, photographs, tmp_path, monkeypatch):
    folder = tmp_path / "set"
    shutil.copytree(photographs, folder / "b")
    (folder / "a").mkdir()
    listed = Path.iterdir

    def iterdir(path):
        if path.name == "a":  # root may read any folder
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    outcome = pi_dynn("classify", folder)
    assert outcome.status == 1 and "a: cannot be read (Permission denied)" in outcome.err
    assert f"{len(list(photographs.glob('*.jpg')))} images, 1 failed" in outcome.out + outcome.err


def test_names_of_any_bytes_reach_csv_and_no_control_character_the_terminal(pi_dynn, photographs, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff\x1b[2Kname.jpg")
    shutil.copy(sorted(photographs.glob("*.jpg"))[0], odd)
    outcome = pi_dynn("classify", odd, "--csv", tmp_path / "out.csv")
    assert outcome.status == 0 and "\x1b" not in outcome.out and "\\x1b[2Kname.jpg" in outcome.out
    assert os.fsencode(odd) in (tmp_path / "out.csv").read_bytes()
    missing = pi_dynn("classify", str(tmp_path / "none\x1b[31m.jpg"))
    assert missing.status == 1 and "\x1b" not in missing.err

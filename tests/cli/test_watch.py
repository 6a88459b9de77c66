"""`pi-dynn watch` from end to end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec

import numpy as np
import pytest

from pi_dynn.classify.records import WatchSummary
from pi_dynn.records import Prediction
from tests.mosquitto import Mosquitto, wait_until


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} comes with an extra")


@pytest.fixture
def watch(pi_dynn, tiny_bundle_path):
    return lambda *arguments: pi_dynn("watch", "--bundle", tiny_bundle_path, "--threads", 1, *arguments)


@pytest.fixture
def start(tiny_bundle_path):
    """Start the program as a process of its own; it is watching when this returns."""
    started = []

    def run(*arguments) -> subprocess.Popen:
        command = [sys.executable, "-m", "pi_dynn.cli", "watch", "--bundle", tiny_bundle_path, "--threads", "1"]
        process = subprocess.Popen(
            [*command, "--engine", "fp32", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        started.append(process)
        assert process.stderr.readline().startswith("watching "), process.stderr.read()
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def write_video(path) -> None:
    cv2 = pytest.importorskip("cv2")
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for i in range(10):
        video.write(np.full((48, 64, 3), 20 * i, np.uint8))
    video.release()


def test_a_video_as_json_lines(watch, tmp_path):
    write_video(tmp_path / "video.avi")
    outcome = watch(tmp_path / "video.avi", "--top", 2)
    assert outcome.status == 0
    *lines, last = [json.loads(line) for line in outcome.out.splitlines()]
    about = {"path", "frame", "time", "age_s", "kind", "schema"}
    assert all(set(line) == about | set(Prediction.__dataclass_fields__) for line in lines)
    assert [line["frame"] for line in lines] == sorted({line["frame"] for line in lines})
    assert all(line["age_s"] > 0 and line["path"] == str(tmp_path / "video.avi") for line in lines)
    summary = WatchSummary.from_dict(last["summary"])
    assert summary.frames == 10 and summary.images == len(lines) == 10 - summary.dropped
    assert summary.published is None
    first, line = outcome.err.splitlines()
    assert first.startswith("watching") and line.endswith(f"{summary.dropped} of 10 frames dropped")


def test_count_and_every(watch):
    outcome = watch("fake", "--count", 3, "--every", 0.35)
    *lines, last = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.status == 0 and last["summary"]["images"] == len(lines) == 3
    assert last["summary"]["dropped"] >= 3


def test_a_folder_until_ctrl_c(start, tmp_path, photographs):
    pytest.importorskip("watchdog")
    process = start(tmp_path)
    lines = []
    for i in range(3):
        shutil.copy(photographs / f"photograph{i}.jpg", tmp_path)
        lines.append(json.loads(process.stdout.readline()))
    (tmp_path / "bad.jpg").write_bytes(b"this is no picture\n")
    bad = json.loads(process.stdout.readline())
    assert [line["path"] for line in lines] == [str(tmp_path / f"photograph{i}.jpg") for i in range(3)]
    assert bad["path"] == str(tmp_path / "bad.jpg") and "not an image" in bad["error"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    (line,) = out.splitlines()
    summary = json.loads(line)["summary"]
    assert (summary["images"], summary["failed"], summary["interrupted"]) == (3, 1, True)
    error, last = err.splitlines()
    assert error.startswith("pi-dynn: error: ") and "bad.jpg" in error
    assert last.startswith("3 images, 1 failed")
    assert process.returncode == 130


def test_a_camera_until_a_supervisor_ends_it(start):
    process = start("fake", "--every", 3600)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert json.loads(out)["summary"]["interrupted"] is True
    assert process.returncode == 0 and err.startswith("1 image: ")


def test_mqtt_through_a_restart_of_the_broker(start, tmp_path):
    mosquitto = Mosquitto(tmp_path)
    try:
        mosquitto.listen()
        process = start("fake", "--every", 0.05, "--mqtt", mosquitto.url())
        wait_until(lambda: len(mosquitto.heard) >= 3)
        mosquitto.stop_listening()
        mosquitto.down()
        assert "connection lost" in process.stderr.readline()
        mosquitto.up()
        mosquitto.heard.clear()
        mosquitto.listen()
        assert process.stderr.readline().endswith("back\n")
        wait_until(lambda: len(mosquitto.heard) >= 3)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        mosquitto.close()
    (line,) = out.splitlines()
    summary = json.loads(line)["summary"]
    assert process.returncode == 0
    assert summary["published"] >= 6 and summary["unpublished"] >= 1
    assert summary["images"] == summary["published"] + summary["unpublished"]
    topic, payload = mosquitto.heard[-1]
    assert topic == "garden/birds" and json.loads(payload)["label"] in "abcde"
    assert f"{summary['published']} messages published, {summary['unpublished']} not" in err


def test_the_address_of_the_broker_may_come_from_the_environment(watch, tmp_path, monkeypatch):
    mosquitto = Mosquitto(tmp_path)
    try:
        monkeypatch.setenv("PI_DYNN_MQTT", mosquitto.url("a"))
        outcome = watch("fake", "--count", 2)
    finally:
        mosquitto.close()
    assert outcome.status == 0 and json.loads(outcome.out)["summary"]["published"] == 2


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        pytest.param(("/dev/video99",), 3, "/dev/video99: no such camera", marks=needs("cv2")),
        (("nothing",), 1, "nothing: no such folder, video file or camera"),
        (("fake", "--mqtt", "http://who:secret@host/a"), 1, "expected mqtt://host/topic"),
        pytest.param(("fake", "--mqtt", "mqtt://127.0.0.1:1/a"), 1, "1/a: cannot be reached", marks=needs("paho")),
        (("fake", "--thresholds", "0.5"), 1, "got 1 threshold for 3 exits"),
        (("fake", "--every", "-1"), 2, "--every"),
        ((), 2, "SOURCE"),
    ],
)
def test_what_cannot_work_is_one_line(watch, arguments, status, text):
    outcome = watch(*arguments)
    assert outcome.status == status and outcome.out == "" and "secret" not in outcome.err
    assert text in outcome.err
    if status != 2:
        assert len(outcome.err.splitlines()) == 1 and outcome.err.startswith("pi-dynn: error: ")


def test_no_thread_is_left(watch):
    before = threading.active_count()
    watch("fake", "--count", 1)
    assert threading.active_count() == before


def test_extras_are_imported_by_their_source_only():
    program = (
        "import sys; from pi_dynn.cli.main import main\n"
        "try: main(['watch', 'fake', '--count', '1', '--engine', 'fp32', '--threads', '1'])\n"
        "except SystemExit: pass\n"
        "print(*sorted({'cv2', 'watchdog', 'paho', 'picamera2'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == ""

"""The options of `pi-dynn watch` for months without a person: motion, agreement, service, Home Assistant, bundles."""

import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pi_dynn import Preprocess, build_bundle
from pi_dynn.calibrate.records import save_record
from pi_dynn.cli import watch_service
from pi_dynn.cli.watch_service import described_service
from tests.classify.test_home_assistant import check_sensor
from tests.classify.test_planned import record
from tests.cli.test_watch import start, watch
from tests.mosquitto import Mosquitto, wait_until
from tests.networks import random_gfnet
from tests.test_docs import ROOT

__all__ = ["start", "watch"]  # fixtures
BROKER = "mqtt://broker.local/garden/birds"


def write_still_video(path: Path) -> None:
    """Three scenes at 25 frames a second: one of seven seconds, two of one."""
    cv2 = pytest.importorskip("cv2")
    random = np.random.default_rng(0)
    scenes = [random.integers(0, 255, (6, 8, 3)).repeat(20, 0).repeat(20, 1).astype(np.uint8) for _ in range(3)]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (160, 120))
    for i in range(225):
        video.write(scenes[0 if i < 175 else 1 if i < 200 else 2])
    video.release()


def test_a_still_video_is_skipped_and_the_savings_are_an_estimate(watch, tmp_path):
    write_still_video(tmp_path / "video.avi")
    outcome = watch(tmp_path / "video.avi", "--motion", "--at-least", 100)
    assert outcome.status == 0
    *lines, last = [json.loads(line) for line in outcome.out.splitlines()]
    summary = last["summary"]
    assert summary["images"] + summary["failed"] + summary["skipped"] + summary["dropped"] == summary["frames"] == 225
    assert summary["skipped"] > 20
    numbers = [line["frame"] for line in lines]
    assert any(175 <= number < 180 for number in numbers) and any(200 <= number < 205 for number in numbers)
    saved = summary["saved_energy"]
    assert saved["net_j"] > 0 and saved["measured"] is False and saved["meter"] == "estimate" and saved["scope"]
    assert re.search(r"\d+ skipped \(saves .* J, ESTIMATED\)", outcome.err)


def test_a_region_in_shares_and_in_pixels(watch, tmp_path, monkeypatch):
    for region in ("0.25,0.25,0.5,0.5", "10,20,30,40"):
        outcome = watch("fake", "--count", 2, "--roi", region)
        assert outcome.status == 0 and json.loads(outcome.out.splitlines()[-1])["summary"]["images"] == 2
    outcome = watch("fake", "--count", 2, "--roi", "1000,20,30,40")
    assert outcome.status == 1 and "no pixel of a picture of 160 x 120" in outcome.err


def test_unsure_pictures_and_agreement(watch, tmp_path):
    outcome = watch(
        *(
            "fake",
            "--count",
            5,
            "--agree",
            2,
            "--save-unsure",
            tmp_path / "unsure",
            "--unsure-below",
            1,
            "--quota-mb",
            1,
        )
    )
    *lines, last = [json.loads(line) for line in outcome.out.splitlines()]
    summary = last["summary"]
    assert summary["images"] == 5 and len(lines) == 5 - summary["held_back"] < 5
    (picture,) = (tmp_path / "unsure").iterdir()
    with Image.open(picture) as image:
        assert summary["unsure_saved"] == 1 and image.size == (160, 120)


def test_another_bundle_takes_over_in_a_running_watch(start, tiny_bundle, tiny_bundle_path, tmp_path):
    path = tmp_path / "bundle.pt"
    shutil.copy(tiny_bundle_path, path)
    process = start("fake", "--every", 0.05, "--bundle", path)
    assert json.loads(process.stdout.readline())["label"] in "abcde"
    network = random_gfnet(image_size=32, num_classes=3, exits=[2, 6], seed=1)
    other = build_bundle(
        network, exits=[2, 6], thresholds=[0.5] * 2, labels=["x", "y", "z"], preprocess=Preprocess(size=32)
    )
    other.save(path)
    assert "answers from now on, with other classes" in process.stderr.readline()
    wait_until(lambda: json.loads(process.stdout.readline())["label"] in "xyz")
    path.write_bytes(b"no bundle")
    assert "refused, the bundle in use stays" in process.stderr.readline()
    other.save(path)
    process.stderr.readline()
    process.send_signal(signal.SIGHUP)
    assert "with the same classes" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    summary = json.loads(out.splitlines()[-1])["summary"]
    assert (process.returncode, summary["swaps"], summary["refused_swaps"]) == (0, 3, 1)
    assert summary["bundle"] == other.sha256 and summary["dropped"] + summary["images"] == summary["frames"]


def test_home_assistant_on_a_real_broker(start, tmp_path):
    mosquitto = Mosquitto(tmp_path)
    try:
        mosquitto.listen()
        process = start("fake", "--every", 0.05, "--mqtt", mosquitto.url(), "--home-assistant")
        wait_until(lambda: len({topic for topic, _ in mosquitto.heard}) == 6)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        wait_until(lambda: mosquitto.heard[-1] == ("garden/birds/availability", b"offline"))
    finally:
        mosquitto.close()
    heard = dict(mosquitto.heard)
    states = [payload.decode() for topic, payload in mosquitto.heard if topic == "garden/birds/state"]
    configs = {topic: json.loads(payload) for topic, payload in heard.items() if topic.endswith("/config")}
    for topic, payload in configs.items():
        check_sensor(topic, payload)
        assert {payload["state_topic"], payload["availability_topic"]} <= set(heard)
    (options,) = [payload["options"] for payload in configs.values() if "options" in payload]
    assert set(states) <= set(options) == {*"abcde", "none of these"}
    assert json.loads(heard["garden/birds/attributes"]).keys() >= {"label", "probability", "frame", "time"}


def test_the_discovery_is_as_documented(pi_dynn):
    page = (ROOT / "docs" / "watch.md").read_text()
    command = f"watch camera --mqtt {BROKER} --home-assistant --dry-run"
    assert f"pi-dynn {command}" in page
    outcome = pi_dynn(*command.split())
    assert outcome.status == 0 and len(outcome.out.splitlines()) == 2
    for line in outcome.out.splitlines():
        assert line in page.splitlines()
        message = json.loads(line)
        assert message["retain"] is True
        check_sensor(message["topic"], message["payload"])


def test_the_unit_is_as_documented(pi_dynn):
    page = (ROOT / "docs" / "watch.md").read_text()
    command = "watch camera --every 10 --motion --service install --dry-run"
    assert f"pi-dynn {command}" in page
    outcome = pi_dynn(*command.split())
    assert outcome.status == 0
    here = ("ExecStart=", "WorkingDirectory=", "User=")
    for line in outcome.out.splitlines():
        assert line in page.splitlines() or line.startswith(here)


def test_the_service_runs_this_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUDO_USER", "pi")
    words = ["camera", "--service", "install", "--every", "5", "--dry-run", "--save-unsure", "unsure"]
    service = described_service("camera", words, Path("unsure"))
    assert service.command[1:] == ["-m", "pi_dynn.cli", "watch", "camera", "--every", "5", "--save-unsure", "unsure"]
    assert (service.folder, service.user, service.writable) == (tmp_path, "pi", (tmp_path / "unsure",))
    assert described_service("camera", ["--service=remove", "camera"], None).command[3:] == ["watch", "camera"]


@pytest.fixture
def units(monkeypatch, tmp_path):
    """A folder in the place of systemd's, and the calls of systemctl."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(watch_service, "UNITS", tmp_path)
    monkeypatch.setattr(watch_service, "RUNNING", tmp_path)
    monkeypatch.setattr(watch_service, "systemctl", lambda *arguments: calls.append(arguments) or 0)
    return tmp_path, calls


def test_a_service_is_installed_looked_at_and_removed(pi_dynn, units):
    folder, calls = units
    name = "pi-dynn-watch-fake.service"
    assert pi_dynn("watch", "fake", "--every", 5, "--service", "install").status == 0
    assert "-m pi_dynn.cli watch fake --every 5\n" in (folder / name).read_text()
    assert pi_dynn("watch", "fake", "--service", "status").status == 0
    assert pi_dynn("watch", "fake", "--service", "remove").status == 0
    assert list(folder.iterdir()) == []
    assert calls == [
        ("daemon-reload",),
        ("enable", "--now", name),
        ("status", "--no-pager", name),
        ("disable", "--now", name),
        ("daemon-reload",),
    ]
    outcome = pi_dynn("watch", "fake", "--service", "remove")
    assert outcome.status == 1 and "no such service" in outcome.err


def test_without_systemd_nothing_is_written(pi_dynn, units, monkeypatch):
    folder, calls = units
    monkeypatch.setattr(watch_service, "RUNNING", folder / "missing")
    outcome = pi_dynn("watch", "fake", "--service", "install", "--save-unsure", folder / "unsure")
    assert (outcome.status, outcome.out, calls) == (1, "", []) and list(folder.iterdir()) == []
    assert outcome.err == (
        "pi-dynn: error: systemd does not run here, so nothing is installed; --dry-run prints the unit\n"
    )


def test_the_password_of_a_broker_stays_out_of_the_unit(pi_dynn, units, monkeypatch):
    secret = "mqtt://who:secret@host/a"
    outcome = pi_dynn("watch", "fake", "--mqtt", secret, "--service", "install")
    assert outcome.status == 2 and "PI_DYNN_MQTT=... in /etc/pi-dynn.env" in outcome.err and "secret" not in outcome.err
    monkeypatch.setenv("PI_DYNN_MQTT", secret)
    outcome = pi_dynn("watch", "fake", "--service", "install")
    assert outcome.status == 0 and "chmod 600" in outcome.err
    assert "secret" not in next(units[0].iterdir()).read_text() + outcome.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--home-assistant",), "--home-assistant needs the broker"),
        (("--at-least", "5"), "give --motion, too"),
        (("--dry-run",), "give one of them"),
        (("--roi", "1,2,3"), "four numbers"),
        (("--roi", "0,0,0,0"), "is empty"),
        (("--roi", "0.5,0,0.8,1"), "reaches beyond the picture"),
        (("--unsure-below", "0.9"), "give that, too"),
        (("--service", "remove", "--dry-run"), "leave one of them out"),
        (("--no-exit", "--deadline-ms", "5"), "--no-exit and --deadline-ms cannot both be kept"),
        (("--no-exit", "--exits", "3"), "--no-exit and --exits cannot both be kept"),
        (("--agree", "0"), "--agree"),
    ],
)
def test_options_that_do_not_fit(watch, arguments, text):
    outcome = watch("fake", *arguments)
    assert outcome.status == 2 and text in " ".join(outcome.err.split())


@pytest.fixture
def saved_record(tiny_bundle, tmp_path) -> Path:
    save_record(tmp_path / "record.json", record("s", tiny_bundle.sha256))
    return tmp_path / "record.json"


def test_an_allowance_of_energy_and_heat(watch, saved_record):
    outcome = watch(
        *("fake", "--count", 5, "--calibration", saved_record, "--adaptive", "--joules-per-day", 1e6),
    )
    assert outcome.status == 0, outcome.err
    summary = json.loads(outcome.out.splitlines()[-1])["summary"]
    assert summary["images"] == 5 and summary["unpaid"] == 0
    assert summary["spent_energy"]["net_j"] > 0 and summary["spent_energy"]["measured"] is False
    assert "J spent (ESTIMATED)" in outcome.err
    outcome = watch("fake", "--count", 5, "--calibration", saved_record, "--joules-per-day", 1e-3)
    summary = json.loads(outcome.out.splitlines()[-1])["summary"]
    assert summary["images"] == 1 and summary["unpaid"] == 4


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--joules-per-day", 5), 2, "give --calibration or a budget"),
        (("--adaptive",), 2, "give --calibration or a budget"),
        (("--calibration", "record.json", "--threshold", 0.5), 2, "leave the others out"),
        (("--calibration", "nothing.json"), 1, "nothing.json"),
    ],
)
def test_plans_that_cannot_be(watch, saved_record, arguments, status, text):
    outcome = watch("fake", "--count", 1, *arguments)
    assert outcome.status == status and text in " ".join(outcome.err.split())

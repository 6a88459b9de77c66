"""The unit of a watch, and its signs of life on a socket as systemd's."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pi_dynn.classify.service import BEAT_S, WATCHDOG_S, Service, Supervisor
from pi_dynn.clock import FakeClock
from tests.mosquitto import wait_until

ODD = ["/opt/my venv/bin/python", "-m", "pi_dynn.cli", "watch", "http://cam/?a=50%&b=$HOME", 'a"b\\c', "--every", "5"]


@pytest.fixture
def socket_of_systemd(tmp_path, monkeypatch):
    """A datagram socket that NOTIFY_SOCKET names; gives the messages that have come."""
    pytest.importorskip("sdnotify")
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "notify"))
    receiver.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

    def messages() -> list[str]:
        come = []
        while True:
            try:
                come.append(receiver.recv(4096).decode())
            except BlockingIOError:
                return come

    yield messages
    receiver.close()


def test_the_unit():
    service = Service("camera", ["/usr/bin/python3", "-m", "pi_dynn.cli", "watch", "camera"], Path("/home/pi"), "pi")
    lines = service.unit.splitlines()
    assert service.name == "pi-dynn-watch-camera.service"
    for line in (
        "Type=notify",
        "ExecStart=/usr/bin/python3 -m pi_dynn.cli watch camera",
        "WorkingDirectory=/home/pi",
        "User=pi",
        f"WatchdogSec={WATCHDOG_S}",
        "Restart=on-failure",
        "MemoryMax=80%",
        "ProtectSystem=strict",
        "WantedBy=multi-user.target",
    ):
        assert line in lines
    assert "ReadWritePaths" not in service.unit and BEAT_S < WATCHDOG_S / 4


def test_words_are_quoted_for_systemd():
    unit = Service("http://cam/?a=50%", ODD, Path("/home/a%b"), "pi", [Path("/home/my pictures")]).unit
    assert (
        'ExecStart="/opt/my venv/bin/python" -m pi_dynn.cli watch http://cam/?a=50%%&b=$$HOME "a\\"b\\\\c" --every 5'
    ) in unit
    assert 'ReadWritePaths="/home/my pictures"\n' in unit and "Description=pi_dynn watches http://cam/?a=50%%\n" in unit
    assert "WorkingDirectory=/home/a%%b\n" in unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize(
    "words", [[sys.executable, "-m", "pi_dynn.cli", "watch", "camera"], [sys.executable, *ODD[1:]]]
)
def test_systemd_finds_no_fault_in_the_unit(words, tmp_path):
    service = Service("camera", words, tmp_path, "root", [tmp_path])
    (tmp_path / service.name).write_text(service.unit)
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / service.name)], capture_output=True, text=True
    )
    complaints = [line for line in result.stderr.splitlines() if service.name in line or str(tmp_path) in line]
    assert complaints == [] and result.returncode == 0, result.stderr


def test_signs_of_life(socket_of_systemd):
    clock = FakeClock()
    supervisor = Supervisor(clock)
    assert supervisor.there
    supervisor.ready()
    for _ in range(100):
        supervisor.beat("going")
        clock.advance(0.2)
    supervisor.stopping()
    first, *beats, last = socket_of_systemd()
    assert (first, last) == ("READY=1", "STOPPING=1")
    assert set(beats) == {"WATCHDOG=1\nSTATUS=going"} and len(beats) == 20 / BEAT_S


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setitem(sys.modules, "sdnotify", None)
    supervisor = Supervisor(FakeClock())
    supervisor.ready()
    supervisor.beat("going")
    assert not supervisor.there


@pytest.fixture
def start(tiny_bundle_path, socket_of_systemd):
    """Start a watch that gives its signs of life quickly, and does not fit much into its standard output."""
    processes = []

    def run() -> subprocess.Popen:
        options = ["--bundle", str(tiny_bundle_path), "--engine", "fp32", "--threads", "1"]
        program = (
            "import pi_dynn.classify.service as service; service.BEAT_S = 0.05\n"
            f"from pi_dynn.cli.main import main; main(['watch', 'fake', *{options!r}])"
        )
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, 4096)
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def test_a_watch_gives_signs_of_life_until_it_ends(start, socket_of_systemd):
    process, come = start(), []
    reader = threading.Thread(target=process.stdout.read)
    reader.start()
    wait_until(lambda: come.extend(socket_of_systemd()) or len(come) > 10)
    assert come[1] == "READY=1" or come[0] == "READY=1"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    reader.join()
    assert socket_of_systemd()[-1] == "STOPPING=1"


def test_a_watch_that_hangs_gives_none(start, socket_of_systemd):
    """Nobody reads its lines, so the loop that answers stops, while the camera's thread goes on."""
    process, come = start(), []
    wait_until(lambda: come.extend(socket_of_systemd()) or "READY=1" in come)
    silent_s = 0.0
    while silent_s < 1.5:  # thirty signs of life
        time.sleep(0.1)
        silent_s = 0.0 if socket_of_systemd() else silent_s + 0.1
    assert process.poll() is None

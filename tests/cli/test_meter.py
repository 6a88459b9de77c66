"""`pi-dynn meter`."""

import json
import signal
import socket
import subprocess
import sys

import pytest

from pi_dynn.cli.status import ExitStatus
from pi_dynn.power import open_meter


def test_it_shows_what_the_meter_reads(pi_dynn):
    outcome = pi_dynn("meter", "--meter", "fake", "--seconds", 1)
    assert outcome.status == 0
    assert outcome.out.startswith("2.1")
    assert outcome.out.rstrip().endswith("fake, SIMULATED")


def test_json_has_the_same(pi_dynn):
    (line,) = pi_dynn("meter", "--meter", "fake", "--seconds", 0.6, "--json").out.splitlines()
    values = json.loads(line)
    assert values["power_w"] == pytest.approx(2.18, rel=0.02)
    assert values["voltage_v"] * values["current_a"] == pytest.approx(values["power_w"], rel=0.01)
    assert (values["meter"], values["label"]) == ("fake", "SIMULATED")
    assert values["samples"] > 50


def test_served_it_is_read_from_another_process():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "pi_dynn.cli", "meter", "--meter", "fake", "--serve", address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline().startswith(f"tcp://{address} serves fake, SIMULATED")
        with open_meter(f"tcp://{address}") as meter:
            assert meter.info.name == f"fake at tcp://{address}"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


@pytest.mark.parametrize("address", ["here", ":7219", "127.0.0.1:port"])
def test_what_is_no_address_to_serve_at(pi_dynn, address):
    outcome = pi_dynn("meter", "--meter", "fake", "--serve", address)
    assert outcome.status == ExitStatus.USAGE and "HOST:PORT" in outcome.err


def test_a_port_in_use_is_one_line(pi_dynn):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = pi_dynn("meter", "--meter", "fake", "--serve", f"127.0.0.1:{taken.getsockname()[1]}")
    assert outcome.status == 1 and "choose another port" in outcome.err

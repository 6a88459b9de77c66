"""The Pi 5's power chip, from what vcgencmd prints."""

import subprocess

import pytest

from pi_dynn.errors import MeterBusError, MeterNotFound
from pi_dynn.power import open_meter
from pi_dynn.power.pmic import parse_rails


def test_rails_with_both_volts_and_amperes_are_added(pi5_firmware, clock):
    with open_meter("pmic", clock=clock, run=pi5_firmware) as meter:
        reading = meter.read()
    assert reading.power_w == pytest.approx(3.7 * 0.09466522 + 3.3 * 0.08 + 0.75 * 2.0)
    assert meter.info.rails == ("3V3_SYS", "3V7_WL_SW", "VDD_CORE")  # EXT5V has no current
    assert "no USB" in meter.info.scope
    assert reading.voltage_v is None


@pytest.mark.parametrize("text", ["", 'error=1 error_msg="Command not registered"\n', "EXT5V_V volt(24)=5.1V\n"])
def test_other_boards_have_no_such_chip(text):
    assert parse_rails(text) == {}
    with pytest.raises(MeterNotFound, match="Raspberry Pi 5"):
        open_meter("pmic", run=lambda command: text)


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(2, "vcgencmd"), subprocess.TimeoutExpired("vcgencmd", 2), PermissionError(13, "vcgencmd")],
)
def test_no_vcgencmd(error):
    def run(command):
        raise error

    with pytest.raises(MeterNotFound, match="only a Pi 5") as caught:
        open_meter("pmic", run=run)
    assert caught.value.__cause__ is error


def test_failing_later(pi5_firmware, clock):
    answers = [pi5_firmware(("vcgencmd", "pmic_read_adc")), "VDD_CORE_A current(7)=2.0A\nVDD_CORE_V volt(15)=0.7V\n"]
    meter = open_meter("pmic", clock=clock, run=lambda command: answers.pop(0))
    with pytest.raises(MeterBusError, match="not all as before"):
        meter.read()

    def hang(command):
        raise subprocess.TimeoutExpired(command, 2)

    meter = open_meter("pmic", clock=clock, run=pi5_firmware)
    meter._run = hang
    with pytest.raises(MeterBusError, match="timed out"):
        meter.read()

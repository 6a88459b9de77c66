"""The pi-ina219 package itself, on a simulated bus below it."""

import errno
import logging

import pytest

from pi_dynn.errors import MeterBusError, MeterDenied, MeterNotFound
from pi_dynn.power import open_meter
from pi_dynn.power.fake import Constant, Ina219Chip

pytest.importorskip("Adafruit_PureIO", reason="pi-ina219 is not installed")


class PureIoBus:
    """The calls of Adafruit_PureIO.smbus.SMBus that pi-ina219 makes, little-endian as on ARM."""

    def __init__(self, chip):
        self.chip = chip

    def read_word_data(self, address, register):
        assert address == 0x40
        word = self.chip.read_word(register)
        return (word & 0xFF) << 8 | word >> 8

    def write_i2c_block_data(self, address, register, data):
        assert address == 0x40
        self.chip.write_word(register, data[0] << 8 | data[1])


@pytest.fixture
def wired(clock, monkeypatch):
    """Put a chip below the package; returns it."""
    chip = Ina219Chip(clock, Constant(3.06))
    monkeypatch.setattr("Adafruit_PureIO.smbus.SMBus", lambda busnum: PureIoBus(chip))
    return chip


def test_same_readings_as_the_package_gives(wired, clock, tmp_path, next_sample):
    with open_meter("pi-ina219", clock=clock, root=tmp_path) as meter:
        reading = next_sample(meter)
    assert meter.info.name == "pi-ina219"
    assert meter.info.measured

    from ina219 import INA219

    theirs = INA219(0.1, busnum=1)
    theirs.configure(theirs.RANGE_16V, theirs.GAIN_8_320MV, theirs.ADC_12BIT, theirs.ADC_8SAMP)
    clock.sleep(0.01)
    assert reading.voltage_v == pytest.approx(theirs.voltage())
    assert reading.current_a == pytest.approx(theirs.shunt_voltage() * 1e-3 / 0.1)
    assert reading.current_a == pytest.approx(theirs.current() * 1e-3, rel=1e-3)


def test_a_reset_which_the_package_would_read_as_zero_is_seen(wired, clock, tmp_path, next_sample):
    with open_meter("pi-ina219", clock=clock, root=tmp_path) as meter:
        next_sample(meter)
        wired.brown_out()
        next_sample(meter)
        assert next_sample(meter).power_w == pytest.approx(3.06)


def test_logging_of_the_program_is_left_alone(wired, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    open_meter("pi-ina219", clock=clock, root=tmp_path).close()
    assert logging.getLogger().handlers == []


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "no"), MeterNotFound, "setup_pi.sh"),
        (PermissionError(errno.EACCES, "no"), MeterDenied, "group|usermod"),
        (RuntimeError("no bus for this platform"), MeterBusError, "'ina219'"),
    ],
)
def test_failures_are_translated(monkeypatch, tmp_path, error, kind, words):
    def refuse(busnum):
        raise error

    monkeypatch.setattr("Adafruit_PureIO.smbus.SMBus", refuse)
    with pytest.raises(kind, match=words) as caught:
        open_meter("pi-ina219", root=tmp_path)
    assert caught.value.__cause__ is error


def test_package_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ina219", None)
    with pytest.raises(MeterNotFound, match=r"\[pi\]'"):
        open_meter("pi-ina219", root=tmp_path)

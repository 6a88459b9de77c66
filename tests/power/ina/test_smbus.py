"""The adapter to the real bus: byte order, and what each errno means to the user."""

import errno

import pytest

from pi_dynn.errors import InputError, MeterBusError, MeterDenied, MeterNotFound
from pi_dynn.power import open_meter
from pi_dynn.power.fake import Constant, Ina219Chip
from pi_dynn.power.ina.ina219 import Ina219
from pi_dynn.power.ina.smbus import SmbusRegisters, open_smbus


class LittleEndianBus:
    """The word calls of smbus2.SMBus: the first byte on the wire is taken for the low one."""

    def __init__(self, chip):
        self.chip = chip
        self.addresses = set()
        self.closed = False

    def read_word_data(self, address, register):
        self.addresses.add(address)
        return int.from_bytes(self.chip.read_word(register).to_bytes(2, "big"), "little")

    def write_word_data(self, address, register, value):
        self.addresses.add(address)
        self.chip.write_word(register, int.from_bytes(value.to_bytes(2, "little"), "big"))

    def close(self):
        self.closed = True


def test_bytes_are_swapped_both_ways(clock, next_sample):
    wire = LittleEndianBus(Ina219Chip(clock, Constant(3.06)))
    assert SmbusRegisters(wire, 1, 0x41).read_word(0) == 0x399F
    with Ina219(SmbusRegisters(wire, 1, 0x41), clock) as meter:
        assert wire.chip.read_word(0) == meter.settings.config
        assert next_sample(meter).power_w == pytest.approx(3.06)
    assert wire.addresses == {0x41}
    assert wire.closed


def failing(code):
    def open_bus(device):
        raise OSError(code, "as the kernel says")

    return open_bus


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.ENOENT, MeterNotFound, "setup_pi.sh"),
        (errno.ENXIO, MeterNotFound, "setup_pi.sh"),
        (errno.EACCES, MeterDenied, "usermod -aG i2c"),
        (errno.EPERM, MeterDenied, "usermod -aG i2c"),
        (errno.EBUSY, MeterBusError, "dmesg"),
    ],
)
def test_each_failure_to_open_the_bus_has_its_own_cure(tmp_path, code, kind, words):
    with pytest.raises(kind, match=words) as caught:
        open_smbus(1, 0x40, tmp_path, smbus_class=failing(code))
    assert str(tmp_path / "dev/i2c-1") in str(caught.value)
    assert caught.value.__cause__.errno == code


def test_a_missing_bus_is_found_missing(tmp_path):
    pytest.importorskip("smbus2")
    with pytest.raises(MeterNotFound, match="there is no"):
        open_meter("ina219", root=tmp_path, bus=7)


@pytest.mark.parametrize("name", ["ina219", "pi-ina219"])
def test_a_chip_held_by_the_kernel_is_not_touched(lay_out, name):
    root = lay_out("orin_nano")
    with pytest.raises(MeterBusError, match="'hwmon'"):
        open_meter(name, root=root)


@pytest.mark.parametrize("address", [0x3F, 0x50, 0])
def test_addresses_no_ina219_can_have(tmp_path, address):
    with pytest.raises(InputError, match="0x40 to 0x4f"):
        open_meter("ina219", root=tmp_path, address=address)


def test_smbus2_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "smbus2", None)
    with pytest.raises(MeterNotFound, match=r"pip install .*\[i2c\]'"):
        open_meter("ina219", root=tmp_path)

"""The adapter to the real bus: byte order, and what each errno means to the user."""

import errno

import pytest

from pi_dynn.errors import InputError, MeterBusError, MeterDenied, MeterNotFound
from pi_dynn.power import open_meter
from pi_dynn.power.fake import Constant, Ina219Chip, Ina226Chip, Ina228Chip
from pi_dynn.power.ina.i2c_scan import scan_i2c
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


class OneBus:
    """Stands in for smbus2.SMBus: a chip at 0x40 of one bus, no other bus."""

    chip, path, opened = None, "", []

    def __init__(self, path):
        self.opened.append(path)
        if path != self.path:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def read_byte(self, address):
        if address != 0x40:
            raise OSError(errno.ENXIO, "no acknowledge")
        return 0

    def read_word_data(self, address, register):
        return int.from_bytes(self.chip.read_word(register).to_bytes(2, "big"), "little")

    def read_i2c_block_data(self, address, register, length):
        return list(self.chip.read_bytes(register, length))

    def write_word_data(self, address, register, value):
        self.chip.write_word(register, int.from_bytes(value.to_bytes(2, "little"), "big"))

    def close(self):
        return None


CHIPS = {
    "ina219": lambda clock: Ina219Chip(clock, Constant(3.06)),
    "ina226": lambda clock: Ina226Chip(clock, Constant(3.06)),
    "ina260": lambda clock: Ina226Chip(clock, Constant(3.06), shunt_ohm=None),
    "ina228": lambda clock: Ina228Chip(clock, Constant(3.06)),
}


@pytest.fixture
def usb_adapter(tmp_path, monkeypatch):
    """A USB adapter that is bus 20, beside a board's own bus 1: the root of the files."""
    pytest.importorskip("smbus2")
    (tmp_path / "dev").mkdir()
    for number in (1, 20):
        (tmp_path / f"dev/i2c-{number}").touch()
    monkeypatch.setattr(OneBus, "path", str(tmp_path / "dev/i2c-20"))
    monkeypatch.setattr(OneBus, "opened", [])
    monkeypatch.setattr("smbus2.SMBus", OneBus)
    return tmp_path


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize("address", [None, 0x40])
def test_every_opener_uses_the_bus_it_is_given(usb_adapter, clock, monkeypatch, name, address):
    monkeypatch.setattr(OneBus, "chip", CHIPS[name](clock))
    with open_meter(name, clock=clock, root=usb_adapter, bus=20, address=address) as meter:
        assert meter.info.measured
    assert set(OneBus.opened) == {str(usb_adapter / "dev/i2c-20")}
    with open_meter("auto", clock=clock, root=usb_adapter, bus=20, require=True) as meter:
        assert meter.info.name == name


def test_pi_ina219_uses_the_bus_it_is_given(usb_adapter, clock, monkeypatch):
    wirings = []

    def device(shunt_ohm, bus, address):
        wirings.append((bus, address))
        raise RuntimeError("no such board")

    monkeypatch.setattr("pi_dynn.power.ina.pi_ina219._quiet_device", device)
    monkeypatch.setattr(OneBus, "chip", CHIPS["ina219"](clock))
    with pytest.raises(MeterBusError, match="use the meter 'ina219'"):
        open_meter("pi-ina219", clock=clock, root=usb_adapter, bus=20)
    assert wirings == [(20, 0x40)]


@pytest.mark.parametrize("name", [*CHIPS, "pi-ina219"])
def test_a_missing_bus_names_those_there_and_what_to_do(usb_adapter, name):
    if name == "pi-ina219":
        pytest.importorskip("Adafruit_PureIO", reason="pi-ina219 is not installed")
    with pytest.raises(MeterNotFound) as caught:
        open_meter(name, root=usb_adapter, bus=7)
    for words in ("i2c-7, only ", "i2c-1, ", "i2c-20", "plug the USB adapter in and load its driver", "docs/wiring.md"):
        assert words in str(caught.value)
    (usb_adapter / "dev/i2c-1").unlink()
    with pytest.raises(MeterNotFound, match=r"no .*i2c-1, only .*i2c-20: enable I2C .* another bus with --i2c-bus"):
        open_meter(name, root=usb_adapter)


def test_the_scan_tells_what_drives_a_bus(usb_adapter):
    named = usb_adapter / "sys/class/i2c-dev/i2c-20/name"
    named.parent.mkdir(parents=True)
    named.write_text("i2c-ch341-usb at bus 001 device 005\n")
    one, adapter = scan_i2c(usb_adapter)
    assert (one.number, one.adapter, one.answering) == (1, "", ())
    assert (adapter.adapter, adapter.answering) == ("i2c-ch341-usb at bus 001 device 005", (0x40,))

"""The scan of I2C buses, on a simulated bus."""

import errno

import pytest

from pi_dynn.errors import MeterAmbiguous
from pi_dynn.power.ina.i2c_scan import only_meter_address, scan_i2c


class Smbus:
    """A bus with a chip at 0x41; records the addresses read."""

    reads: list[int] = []
    opening: OSError | None = None

    def __init__(self, path: str) -> None:
        if self.opening is not None:
            raise self.opening
        self.reads.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def read_byte(self, address: int) -> int:
        self.reads.append(address)
        if address != 0x41:
            raise OSError(errno.EREMOTEIO, "no acknowledge")
        return 0


@pytest.fixture
def root(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/i2c-1").touch()
    return tmp_path


def test_only_addresses_of_meters_are_asked(root):
    (bus,) = scan_i2c(root, Smbus)
    assert (bus.number, bus.answering, bus.error) == (1, (0x41,), None)
    assert Smbus.reads == list(range(0x40, 0x50))


def test_a_chip_the_kernel_holds_is_named_and_left_alone(root):
    driver = root / "sys/bus/i2c/drivers/ina2xx"
    driver.mkdir(parents=True)
    device = root / "sys/bus/i2c/devices/1-0040"
    device.mkdir(parents=True)
    (device / "driver").symlink_to(driver)
    (bus,) = scan_i2c(root, Smbus)
    assert bus.answering == (0x40, 0x41)
    assert bus.held == {0x40: "ina2xx"}
    assert 0x40 not in Smbus.reads


def test_a_bus_one_may_not_open_says_what_to_do(root, monkeypatch):
    monkeypatch.setattr(Smbus, "opening", OSError(errno.EACCES, "Permission denied"))
    (bus,) = scan_i2c(root, Smbus)
    assert "usermod -aG i2c" in str(bus.error)


def test_no_bus_no_answer(tmp_path):
    assert scan_i2c(tmp_path, Smbus) == []


class TwoChips(Smbus):
    """A bus with chips at 0x40 and 0x45."""

    def read_byte(self, address: int) -> int:
        if address not in (0x40, 0x45):
            raise OSError(errno.EREMOTEIO, "no acknowledge")
        return 0


def test_the_only_meter_is_found_wherever_it_is(root, tmp_path):
    assert only_meter_address(1, root, smbus_class=Smbus) == 0x41
    assert only_meter_address(7, root, smbus_class=Smbus) == 0x40  # opening it will say that there is no such bus


def test_of_two_meters_none_is_taken_by_itself(root):
    with pytest.raises(MeterAmbiguous, match="at 0x40, 0x45: name the one of the board with --i2c-address"):
        only_meter_address(1, root, smbus_class=TwoChips)


def test_chips_that_are_something_else_do_not_count(root, monkeypatch):
    """A converter for analogue signals at 0x45, beside the meter at 0x40."""

    class Registers:
        def __init__(self, bus, address, root):
            self.address = address

        def close(self):
            pass

    monkeypatch.setattr("pi_dynn.power.ina.i2c_scan.open_smbus", Registers)
    assert only_meter_address(1, root, lambda registers: registers.address == 0x45, TwoChips) == 0x40


class NoChip(Smbus):
    def read_byte(self, address: int) -> int:
        raise OSError(errno.EREMOTEIO, "no acknowledge")


def test_where_nothing_answers_it_is_the_usual_address(root):
    assert only_meter_address(1, root, smbus_class=NoChip) == 0x40

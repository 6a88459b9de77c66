"""The real I2C bus, through smbus2."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pi_dynn.errors import InputError, MeterBusError, MeterDenied, MeterNotFound, need_extra


def swap_bytes(word: int) -> int:
    """The word with its two bytes swapped: the chip sends the high byte first, SMBus the low byte.

    >>> hex(swap_bytes(0x399F))
    '0x9f39'
    """
    return (word & 0xFF) << 8 | word >> 8 & 0xFF


class WordBus(Protocol):
    """The calls of smbus2.SMBus for words and blocks."""

    def read_word_data(self, i2c_addr: int, register: int, /) -> int: ...

    def write_word_data(self, i2c_addr: int, register: int, value: int, /) -> None: ...

    def read_i2c_block_data(self, i2c_addr: int, register: int, length: int, /) -> list[int]: ...

    def close(self) -> None: ...


class SmbusRegisters:
    """The registers of the chip at `address`, over anything with these calls of smbus2.SMBus."""

    def __init__(self, smbus: WordBus, bus: int, address: int) -> None:
        self.name = f"/dev/i2c-{bus} address {address:#04x}"
        self._smbus = smbus
        self._address = address

    def read_word(self, register: int) -> int:
        return swap_bytes(self._smbus.read_word_data(self._address, register))

    def read_bytes(self, register: int, count: int) -> bytes:
        return bytes(self._smbus.read_i2c_block_data(self._address, register, count))

    def write_word(self, register: int, value: int) -> None:
        self._smbus.write_word_data(self._address, register, swap_bytes(value))

    def close(self) -> None:
        self._smbus.close()


def check_address(bus: int, address: int, root: Path) -> Path:
    """The device file of the bus, if no driver holds the chip.

    Raises: InputError for an address no INA219 can have, MeterBusError if a kernel driver owns the chip.
    """
    if not 0x40 <= address <= 0x4F:
        raise InputError(f"an INA219 answers at 0x40 to 0x4f, got {address:#04x}: see its A0 and A1 bridges")
    driver = root / f"sys/bus/i2c/devices/{bus}-{address:04x}/driver"
    if driver.exists():  # a read of ours would change the register pointer that the driver relies on
        raise MeterBusError(
            f"the kernel driver {driver.resolve().name} holds /dev/i2c-{bus} address {address:#04x}: "
            "use the meter 'hwmon' instead"
        )
    return root / f"dev/i2c-{bus}"


def bus_open_error(error: OSError, device: Path) -> MeterNotFound | MeterDenied | MeterBusError:
    """The error for a failed opening of `device`, with what to do about it."""
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        others = sorted(str(path) for path in device.parent.glob("i2c-*"))
        there = f"there is no {device}{', only ' + ', '.join(others) if others else ''}"
        if device.name == "i2c-1":
            other = ", or name another bus with --i2c-bus" if others else ""
            return MeterNotFound(f"{there}: enable I2C with scripts/setup_pi.sh and reboot{other}")
        return MeterNotFound(
            f"{there}: plug the USB adapter in and load its driver, docs/wiring.md, or name another bus"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return MeterDenied(f"this user may not open {device}: sudo usermod -aG i2c $USER, then log in again")
    return MeterBusError(f"cannot open {device} ({error.strerror}): see dmesg")


def open_smbus(
    bus: int, address: int, root: Path = Path("/"), smbus_class: Callable[[str], WordBus] | None = None
) -> SmbusRegisters:
    """Open `/dev/i2c-<bus>` for the chip at `address`.

    Raises: MeterNotFound, MeterDenied or MeterBusError, each with its cure; InputError for the address.
    """
    device = check_address(bus, address, root)
    if smbus_class is None:
        with need_extra("i2c", "an I2C meter", MeterNotFound):
            from smbus2 import SMBus
        smbus_class = SMBus
    try:
        return SmbusRegisters(smbus_class(str(device)), bus, address)
    except OSError as error:
        raise bus_open_error(error, device) from error

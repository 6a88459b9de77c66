"""A scan of the I2C buses for chips at the addresses of power meters."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pi_dynn.errors import MeterAmbiguous, PowerError, need_extra
from pi_dynn.power.ina.registers import RegisterBus
from pi_dynn.power.ina.smbus import bus_open_error, open_smbus

if TYPE_CHECKING:
    from smbus2 import SMBus

BusClass = Callable[[str], "SMBus"]

METER_ADDRESSES = range(0x40, 0x50)
"""All that an INA219 can have. No others are read, because some chips take a read for a command."""


class I2cBus(NamedTuple):
    """A bus and the addresses that answered, including those held by a kernel driver, which `held` names.

    `adapter` is what drives the bus, as the kernel calls it; "" if it does not tell.
    """

    number: int
    answering: tuple[int, ...]
    held: dict[int, str]
    error: PowerError | None
    adapter: str = ""


def scan_i2c(root: Path = Path("/"), smbus_class: BusClass | None = None) -> list[I2cBus]:
    """Every `/dev/i2c-N` below `root`, and the addresses from 0x40 to 0x4f that answer there."""
    numbers = sorted(int(path.name[4:]) for path in root.glob("dev/i2c-*") if path.name[4:].isdigit())
    return [_scan(root, number, smbus_class) for number in numbers]


def only_meter_address(
    bus: int,
    root: Path = Path("/"),
    is_other: Callable[[RegisterBus], bool] | None = None,
    smbus_class: BusClass | None = None,
) -> int:
    """The address of the only meter that answers on `/dev/i2c-<bus>`; the first that one can have if none does.

    `is_other` tells from its registers whether a chip is something else; chips held by a kernel driver are not asked.

    Raises: MeterAmbiguous if there are several, because one may measure the battery and another the board.
    """
    if not (root / f"dev/i2c-{bus}").exists():
        return METER_ADDRESSES[0]
    found = _scan(root, bus, smbus_class)
    answering = found.answering
    if len(answering) > 1 and is_other is not None:
        answering = tuple(
            address for address in answering if address in found.held or not _is_other(bus, address, root, is_other)
        )
    if len(answering) > 1:
        raise MeterAmbiguous(
            f"several meters answer on /dev/i2c-{bus}, at {', '.join(f'{address:#04x}' for address in answering)}: "
            "name the one of the board with --i2c-address"
        )
    return answering[0] if answering else METER_ADDRESSES[0]


def _is_other(bus: int, address: int, root: Path, is_other: Callable[[RegisterBus], bool]) -> bool:
    registers = open_smbus(bus, address, root)
    try:
        return is_other(registers)
    except OSError:
        return True
    finally:
        registers.close()


def _scan(root: Path, number: int, smbus_class: BusClass | None) -> I2cBus:
    held = {
        address: driver.resolve().name
        for address in METER_ADDRESSES
        if (driver := root / f"sys/bus/i2c/devices/{number}-{address:04x}/driver").exists()
    }
    device, named = root / f"dev/i2c-{number}", root / f"sys/class/i2c-dev/i2c-{number}/name"
    adapter = named.read_text(encoding="utf-8", errors="replace").strip() if named.is_file() else ""
    try:
        if smbus_class is None:
            with need_extra("i2c", "looking for I2C meters", PowerError):
                from smbus2 import SMBus
            smbus_class = SMBus
        with smbus_class(str(device)) as bus:
            answering = tuple(address for address in METER_ADDRESSES if address in held or _answers(bus, address))
    except PowerError as error:
        return I2cBus(number, tuple(held), held, error, adapter)
    except OSError as error:
        return I2cBus(number, tuple(held), held, bus_open_error(error, device), adapter)
    return I2cBus(number, answering, held, None, adapter)


def _answers(bus: "SMBus", address: int) -> bool:
    try:
        bus.read_byte(address)
    except OSError as error:
        return error.errno == errno.EBUSY
    return True

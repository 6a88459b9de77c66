"""The meter `pi-ina219`: an INA219 through the `ina219` module of the pi-ina219 package, for its users.

Only its bus is used: the package itself repeats stale registers, does not detect a chip reset and gives no time
stamps. Everything above the registers is the driver in `ina219.py`.
"""

import logging
import warnings
from pathlib import Path
from typing import Protocol

from pi_dynn.clock import Clock
from pi_dynn.errors import MeterBusError, MeterNotFound, need_extra
from pi_dynn.power.ina.i2c_scan import only_meter_address
from pi_dynn.power.ina.ina219 import Ina219, settings_for
from pi_dynn.power.ina.smbus import bus_open_error, check_address


class Device(Protocol):
    """The methods used of the package's bus device."""

    def readU16BE(self, register: int) -> int: ...

    def writeList(self, register: int, data: list[int]) -> None: ...


class PiIna219Registers:
    """The registers behind an `ina219.INA219` object, through the bus device it opened."""

    def __init__(self, device: Device, bus: int, address: int) -> None:
        self.name = f"/dev/i2c-{bus} address {address:#04x} (pi-ina219)"
        self._device = device

    def read_word(self, register: int) -> int:
        return self._device.readU16BE(register)

    def write_word(self, register: int, value: int) -> None:
        self._device.writeList(register, [value >> 8, value & 0xFF])

    def close(self) -> None:
        """The package has no way to close its bus: it ends with the process."""


def _quiet_device(shunt_ohm: float, bus: int, address: int) -> Device:
    """The bus device of the package's object, constructed without its side effects."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies carry invalid escape sequences
        from ina219 import INA219
    silence = logging.NullHandler()
    root_logger = logging.getLogger()
    root_logger.addHandler(silence)  # else the constructor configures the logging of the whole program
    try:
        # busnum is needed: the package knows no 64-bit Raspberry Pi and would not find its bus.
        device: Device = INA219(shunt_ohm, busnum=bus, address=address)._i2c
        return device
    finally:
        root_logger.removeHandler(silence)


def open_pi_ina219(
    *,
    clock: Clock,
    root: Path = Path("/"),
    bus: int = 1,
    address: int | None = None,
    shunt_ohm: float | None = None,
    max_current_a: float | None = None,
    bus_range_v: int = 16,
    shunt_averages: int = 8,
    rephase_every: int = 32,
    certificate: str | Path | None = None,
) -> Ina219:
    """Open the INA219 at `address` of bus `bus` through pi-ina219 (extra `[pi]`); options as for `ina219`."""
    settings = settings_for(
        shunt_ohm=shunt_ohm,
        certificate=certificate,
        max_current_a=max_current_a,
        bus_range_v=bus_range_v,
        shunt_averages=shunt_averages,
        rephase_every=rephase_every,
    )
    if address is None:
        address = only_meter_address(bus, root)
    device_file = check_address(bus, address, root)
    try:
        with need_extra("pi", "the meter pi-ina219", MeterNotFound):
            device = _quiet_device(settings.shunt_ohm, bus, address)
    except MeterNotFound:  # it is an OSError, too
        raise
    except OSError as error:
        raise bus_open_error(error, device_file) from error
    except RuntimeError as error:
        raise MeterBusError(f"pi-ina219 does not know this board ({error}): use the meter 'ina219'") from error
    return Ina219(PiIna219Registers(device, bus, address), clock, settings, name="pi-ina219")

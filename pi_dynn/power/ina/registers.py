"""The registers of an INA219, the bus to them, and how another chip at its address is known by reading.

Source: TI SBOS448G, section 8.6.
"""

from typing import Protocol

from pi_dynn.clock import Clock

CONFIG, SHUNT, BUS, POWER, CURRENT, CALIBRATION = range(6)
MATH_OVERFLOW = 0x0001  # of the bus register
_UNUSED_CONFIG_BITS = 0xC000  # reset reads back as 0, bit 14 is not used: anything else is another chip

# Manufacturer and die registers of its relatives, by their data sheets; an INA219 has neither.
_IDENTITY_REGISTERS = ((0xFE, 0xFF), (0x3E, 0x3F))
_TEXAS_INSTRUMENTS = 0x5449
INA226, INA228, INA260 = "an INA226", "an INA228", "an INA260"
_DIES = {0x2260: INA226, 0x2270: INA260, 0x3220: "an INA3221", 0x2280: INA228}
_LOOKS, _LOOK_PAUSE_S = 4, 5e-3
_SHUNT_NOISE = 100  # steps of 10 uV


class RegisterBus(Protocol):
    """A bus to one chip with 16-bit registers, as integers whatever the byte order of the bus."""

    name: str

    def read_word(self, register: int) -> int:
        """The 16 bits of a register. Raises: OSError with the errno of the bus."""
        ...

    def write_word(self, register: int, value: int) -> None:
        """Write 16 bits. Raises: OSError with the errno of the bus."""
        ...

    def close(self) -> None:
        """Release the bus."""
        ...


def signed(word: int) -> int:
    """A register's 16 bits as a signed number."""
    return word - 0x10000 if word & 0x8000 else word


def identity(bus: RegisterBus) -> str | None:
    """The chip of Texas Instruments that names itself in its registers; None for one that does not, as an INA219."""
    for register, die_register in _IDENTITY_REGISTERS:
        try:
            if bus.read_word(register) == _TEXAS_INSTRUMENTS:
                die = bus.read_word(die_register) & 0xFFF0
                return _DIES.get(die, f"a chip of Texas Instruments, number {die:#06x}")
        except OSError:
            continue  # no such register
    return None


def other_chip(bus: RegisterBus, clock: Clock) -> str | None:
    """What shows that the chip on the bus is no INA219; None if nothing does. It only reads.

    Raises: OSError if one of the six registers of an INA219 cannot be read.
    """
    named = identity(bus)
    if named is not None:
        return named
    config = bus.read_word(CONFIG)
    if config & _UNUSED_CONFIG_BITS:
        return f"register 0 reads {config:#06x}"
    return None if _multiplies(bus, clock) else "its current is not its shunt voltage times its calibration"


def _multiplies(bus: RegisterBus, clock: Clock) -> bool:
    """Whether the current register follows the shunt and calibration registers, as in section 8.5.1."""
    for _ in range(_LOOKS):
        shunt, current = signed(bus.read_word(SHUNT)), signed(bus.read_word(CURRENT))
        calibration, overflow = bus.read_word(CALIBRATION), bus.read_word(BUS) & MATH_OVERFLOW
        expected = shunt * calibration / 4096
        if overflow or abs(current - expected) <= 0.2 * abs(expected) + _SHUNT_NOISE * calibration / 4096:
            return True  # the current may have changed between the two reads
        clock.sleep(_LOOK_PAUSE_S)
    return False

"""What the INA226, INA228 and INA260 have in common: averaged pairs of conversions, and a name in their registers.

A pair is a conversion of the current, then one of the bus voltage. Their ranges are fixed.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from pi_dynn.clock import Clock
from pi_dynn.errors import InputError
from pi_dynn.power.ina.chip import Conversion, InaChip
from pi_dynn.power.ina.registers import identity
from pi_dynn.power.meter import MeterAccuracy, SampleFlags

AVERAGES = (1, 4, 16, 64, 128, 256, 512, 1024)
_READS_PER_LOOK = 16
_REVERSED_SHARE = 0.005  # of the range: far beyond the offset
P = TypeVar("P", bound="PairSettings")


@dataclass(frozen=True)
class PairSettings(ABC):
    """How a chip is wired and configured; `averages` pairs of conversions make one sample.

    `gain`, `offset_a`, `voltage_gain` and `certified` are those of a calibration, `rephase_every` and `fast` as for an
    INA219.

    Raises: InputError if a value is outside what the chip can do.
    """

    shunt_ohm: float = 0.1
    averages: int = 4
    gain: float = 1.0
    offset_a: float = 0.0
    voltage_gain: float = 1.0
    rephase_every: int = 32
    certified: float | None = None
    fast: bool = False

    BREAKOUT: ClassVar[str] = "0.1 (R100)"
    """The shunt of breakout boards, for people."""
    TIMES_S: ClassVar[tuple[float, ...]]
    """Of one conversion, by code."""
    CURRENT_CODE: ClassVar[int]
    BUS_CODE: ClassVar[int]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shunt_ohm) and self.shunt_ohm > 0):
            raise InputError(
                f"a shunt has more than 0 ohm, got {self.shunt_ohm!r}: breakout boards carry {self.BREAKOUT}"
            )
        if self.averages not in AVERAGES:
            raise InputError(f"it averages {', '.join(map(str, AVERAGES))} conversions, not {self.averages!r}")
        if self.rephase_every < 0:
            raise InputError(f"rephase_every counts samples, got {self.rephase_every!r}: 0 switches it off")

    @property
    def _count(self) -> int:
        return 1 if self.fast else self.averages

    @property
    def current_code(self) -> int:
        """The code of the time of one conversion of the current."""
        return 0 if self.fast else self.CURRENT_CODE

    @property
    def average_code(self) -> int:
        """The code of the number of pairs."""
        return AVERAGES.index(self._count)

    @property
    @abstractmethod
    def config(self) -> int:
        """The word of the converter's configuration: continuous current and bus voltage."""

    @property
    @abstractmethod
    def step_a(self) -> float:
        """The current of one step of its register."""

    @property
    @abstractmethod
    def range_a(self) -> float:
        """The current at the end of the range."""

    @property
    @abstractmethod
    def resolution_w(self) -> float:
        """The smallest step of power at 5 V."""

    @property
    @abstractmethod
    def accuracy(self) -> MeterAccuracy:
        """The largest errors by the data sheet, at 25 C, and of the shunt."""

    @property
    def cycle_s(self) -> float:
        """Time from sample to sample."""
        return self._count * (self.TIMES_S[self.current_code] + self.TIMES_S[self.BUS_CODE])

    @property
    def current_s(self) -> float:
        """The part of it in which the current is measured."""
        return self._count * self.TIMES_S[self.current_code]

    @property
    def age_s(self) -> float:
        """From the middle of all conversions of the current to the end of the cycle; each precedes one of the bus."""
        return 0.5 * (self.cycle_s + self.TIMES_S[self.BUS_CODE])

    def faster(self: P) -> P:
        """The same with the shortest conversions."""
        return replace(self, fast=True)

    def wider(self: P) -> P:
        """The same: there is one range."""
        return self


class PairChip(InaChip[P], Generic[P]):
    """A chip that names itself and averages pairs of conversions; see `InaChip`."""

    named: str
    """What `identity` calls it."""
    clipped: int
    """The register of the current at the end of the range."""
    bus_lsb_v: float

    @abstractmethod
    def _steps(self) -> tuple[int, int]:
        """The registers of the current and of the bus voltage, with their signs."""

    def _stranger(self) -> str | None:
        found = identity(self.bus)
        return None if found == self.named else found or "it does not name itself"

    def _take(self, ready_word: int) -> Conversion:
        cleared_ns = self._clock.now_ns()  # by the reading of the ready word
        steps, bus = self._steps()
        flags = SampleFlags.NONE
        if abs(steps) >= self.clipped:
            flags |= SampleFlags.CLIPPED
        current_a = steps * self.settings.step_a
        if current_a < -_REVERSED_SHARE * self.settings.range_a:
            flags |= SampleFlags.REVERSED
        suspect = bus == 0 or self._fresh % _READS_PER_LOOK == 0  # nothing else shows that the chip was reset
        return Conversion(current_a, bus * self.bus_lsb_v, flags, suspect, cleared_ns)


C = TypeVar("C", bound=PairChip)  # type: ignore[type-arg]


def open_pair_chip(chip: type[C], clock: Clock, root: Path, bus: int, address: int | None, settings: PairSettings) -> C:
    """Open the chip of this kind at `address` of `/dev/i2c-<bus>`, without one the only one there.

    Raises: MeterAmbiguous if several answer.
    """
    from pi_dynn.power.ina.i2c_scan import only_meter_address
    from pi_dynn.power.ina.smbus import open_smbus

    if address is None:
        address = only_meter_address(bus, root, lambda registers: identity(registers) != chip.named)
    return chip(open_smbus(bus, address, root), clock, settings, name=chip.chip_name.lower())

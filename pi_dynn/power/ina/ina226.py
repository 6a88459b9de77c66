"""The INA226 and INA260 current monitors: 16 bits, both averaging volts and amperes over the whole of a sample.

They share their registers but for the first: an INA226 gives the voltage over an external shunt, an INA260 the
current through its own of 2 milliohms.

Source: TI SBOS547 (INA226) and SBOS656 (INA260).
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from pi_dynn.clock import Clock
from pi_dynn.errors import InputError
from pi_dynn.power.certificate import calibrated
from pi_dynn.power.ina.chip import Conversion, InaChip
from pi_dynn.power.ina.registers import BUS, CONFIG, INA226, INA260, SHUNT, identity, signed
from pi_dynn.power.meter import MeterAccuracy, SampleFlags

_MASK, _ALERT_LIMIT = 6, 7  # reading the mask and enable register clears "conversion ready"
_MARK = 0x5A5A  # in a register that nothing uses here, and that a reset clears
_READS_PER_LOOK = 16
_BUS_LSB_V = 1.25e-3
_AVERAGES = (1, 4, 16, 64, 128, 256, 512, 1024)
_TIMES_S = (140e-6, 204e-6, 332e-6, 588e-6, 1.1e-3, 2.116e-3, 4.156e-3, 8.244e-3)  # of one conversion, by code
_CURRENT_CODE, _BUS_CODE = 4, 0  # 1.1 ms and 140 us: the current is measured 89 % of the time
_CONTINUOUS = 0x7
_CLIPPED = 0x7FFF
_NOMINAL_BUS_V = 5.0
_SHUNT_TOLERANCE = 0.01


@dataclass(frozen=True)
class Ina226Settings:
    """How an INA226 is wired and configured; `averages` pairs of conversions make one sample: 4 give 202 Hz.

    `gain`, `offset_a`, `voltage_gain` and `certified` are those of a calibration, `rephase_every` and `fast` as for an
    INA219. The range is fixed: 0.8 A on a shunt of 0.1 ohm, so that a Raspberry Pi 4 needs one of 0.02 ohm or less.

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

    FIXED_BITS: ClassVar[int] = 0x4000
    STEP_V: ClassVar[float] = 2.5e-6

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shunt_ohm) and self.shunt_ohm > 0):
            raise InputError(f"a shunt has more than 0 ohm, got {self.shunt_ohm!r}: breakout boards carry 0.1 (R100)")
        if self.averages not in _AVERAGES:
            raise InputError(f"it averages {', '.join(map(str, _AVERAGES))} conversions, not {self.averages!r}")
        if self.rephase_every < 0:
            raise InputError(f"rephase_every counts samples, got {self.rephase_every!r}: 0 switches it off")

    @property
    def _count(self) -> int:
        return 1 if self.fast else self.averages

    @property
    def _code(self) -> int:
        return 0 if self.fast else _CURRENT_CODE

    @property
    def config(self) -> int:
        """The configuration word: continuous current and bus voltage."""
        return self.FIXED_BITS | _AVERAGES.index(self._count) << 9 | _BUS_CODE << 6 | self._code << 3 | _CONTINUOUS

    @property
    def cycle_s(self) -> float:
        """Time from sample to sample."""
        return self._count * (_TIMES_S[self._code] + _TIMES_S[_BUS_CODE])

    @property
    def current_s(self) -> float:
        """The part of it in which the current is measured."""
        return self._count * _TIMES_S[self._code]

    @property
    def age_s(self) -> float:
        """From the middle of all conversions of the current to the end of the cycle; each precedes one of the bus."""
        return 0.5 * (self.cycle_s + _TIMES_S[_BUS_CODE])

    @property
    def step_a(self) -> float:
        """The current of one step of register 1."""
        return self.STEP_V / self.shunt_ohm

    @property
    def range_a(self) -> float:
        """The current at the end of the range."""
        return _CLIPPED * self.step_a * self.gain

    @property
    def resolution_w(self) -> float:
        """The smallest step of power at 5 V."""
        return self.step_a * _NOMINAL_BUS_V

    @property
    def accuracy(self) -> MeterAccuracy:
        """The largest errors by the data sheet, at 25 C, and of the shunt."""
        offset_w = 10e-6 / self.shunt_ohm * _NOMINAL_BUS_V
        if self.certified is not None:
            return MeterAccuracy("shunt certificate, INA226 data sheet", self.certified, 0.0, 0.001, offset_w)
        return MeterAccuracy("INA226 data sheet, R100 shunt", _SHUNT_TOLERANCE, 0.001, 0.001, offset_w)

    def faster(self) -> "Ina226Settings":
        """The same with the shortest conversions."""
        return replace(self, fast=True)

    def wider(self) -> "Ina226Settings":
        """The same: there is one range."""
        return self


@dataclass(frozen=True)
class Ina260Settings(Ina226Settings):
    """How an INA260 is configured; its shunt of 2 milliohms and its gain are trimmed in the factory."""

    shunt_ohm: float = 0.002

    FIXED_BITS: ClassVar[int] = 0x6000

    @property
    def step_a(self) -> float:
        """The current of one step of register 1, which is in amperes already."""
        return 1.25e-3

    @property
    def range_a(self) -> float:
        """The largest continuous current of the package, which is less than the register holds."""
        return 15.0

    @property
    def accuracy(self) -> MeterAccuracy:
        """The largest errors by the data sheet, shunt included."""
        gain = 0.0015 if self.certified is None else self.certified
        return MeterAccuracy("INA260 data sheet", 0.0, gain, 0.001, 5e-3 * _NOMINAL_BUS_V)


class Ina226(InaChip[Ina226Settings]):
    """An INA226; see `InaChip`."""

    chip_name = "INA226"
    ready_register = _MASK
    ready_bit = 0x0008
    power_on_config = 0x4127
    named = INA226

    def _settings_words(self) -> dict[int, int]:
        return {_ALERT_LIMIT: _MARK, CONFIG: self.settings.config}

    def _stranger(self) -> str | None:
        found = identity(self.bus)
        return None if found == self.named else found or "it does not name itself"

    def _take(self, ready_word: int) -> Conversion:
        cleared_ns = self._clock.now_ns()  # by the reading of the ready word
        word, bus = signed(self._read(SHUNT)), self._read(BUS)
        flags = SampleFlags.NONE
        if abs(word) >= _CLIPPED:
            flags |= SampleFlags.CLIPPED
        current_a = word * self.settings.step_a
        if current_a < -0.005 * self.settings.range_a:  # far beyond the offset
            flags |= SampleFlags.REVERSED
        suspect = bus == 0 or self._fresh % _READS_PER_LOOK == 0  # nothing else shows that the chip was reset
        return Conversion(current_a, bus * _BUS_LSB_V, flags, suspect, cleared_ns)


class Ina260(Ina226):
    """An INA260; see `InaChip`."""

    chip_name = "INA260"
    power_on_config = 0x6127
    named = INA260


def open_ina226(
    *,
    clock: Clock,
    root: Path = Path("/"),
    bus: int = 1,
    address: int | None = None,
    shunt_ohm: float | None = None,
    averages: int = 4,
    rephase_every: int = 32,
    certificate: str | Path | None = None,
) -> Ina226:
    """Open the INA226 at `address` of `/dev/i2c-<bus>`, without one the only INA226 there; see `Ina226Settings`.

    Raises: MeterAmbiguous if several answer.
    """
    corrections = calibrated(certificate, shunt_ohm, 0.1)
    settings = Ina226Settings(averages=averages, rephase_every=rephase_every, **corrections)  # type: ignore[arg-type]
    return _open(Ina226, clock, root, bus, address, settings)


def open_ina260(
    *,
    clock: Clock,
    root: Path = Path("/"),
    bus: int = 1,
    address: int | None = None,
    averages: int = 4,
    rephase_every: int = 32,
) -> Ina226:
    """Open the INA260 at `address` of `/dev/i2c-<bus>`, without one the only INA260 there.

    Raises: MeterAmbiguous if several answer.
    """
    return _open(Ina260, clock, root, bus, address, Ina260Settings(averages=averages, rephase_every=rephase_every))


def _open(
    chip: type[Ina226], clock: Clock, root: Path, bus: int, address: int | None, settings: Ina226Settings
) -> Ina226:
    from pi_dynn.power.ina.i2c_scan import only_meter_address
    from pi_dynn.power.ina.smbus import open_smbus

    if address is None:
        address = only_meter_address(bus, root, lambda registers: identity(registers) != chip.named)
    return chip(open_smbus(bus, address, root), clock, settings, name=chip.chip_name.lower())

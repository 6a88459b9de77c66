"""The INA228 current monitor: 20 bits, and an accumulator that counts joules in hardware.

As a counter it misses nothing between two readings, however late they come. As a power meter it gives volts and
amperes.

Source: TI SLYS021.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pi_dynn.clock import Clock
from pi_dynn.errors import InputError
from pi_dynn.power.certificate import calibrated
from pi_dynn.power.ina.chip import Conversion, InaChip
from pi_dynn.power.ina.registers import INA228, RegisterBus, identity
from pi_dynn.power.meter import EnergyReading, MeterAccuracy, MeterInfo, PowerSample, SampleFlags

_CONFIG, _ADC_CONFIG, _SHUNT_CAL, _VSHUNT, _VBUS, _ENERGY, _DIAGNOSTIC, _OVER_LIMIT = 0, 1, 2, 4, 5, 9, 0xB, 0xC
_LATCHED = 0x8000  # of the diagnostic register: conversion ready stays set until it is read
_MARK = 0x7FFE  # a limit that is never used, next to its value after a reset
_SHUNT_LSB_V = 312.5e-9
_BUS_LSB_V = 195.3125e-6
_STEPS = 1 << 19  # of the 20 bits with sign
_CALIBRATION = 4096  # 13107.2e6 x current LSB x shunt, for a current LSB of one step of the shunt voltage
_ENERGY_STEPS = 16 * 3.2  # one step of the accumulator, in steps of the current at 1 V
_AVERAGES = (1, 4, 16, 64, 128, 256, 512, 1024)
_TIMES_S = (50e-6, 84e-6, 150e-6, 280e-6, 540e-6, 1.052e-3, 2.074e-3, 4.12e-3)
_CURRENT_CODE, _BUS_CODE = 5, 1
_CURRENT_AND_BUS = 0xB
_NOMINAL_BUS_V = 5.0
_SHUNT_TOLERANCE = 0.01
_READS_PER_LOOK = 16


class ByteBus(RegisterBus, Protocol):
    """A bus to a chip that has registers of more than 16 bits, too."""

    def read_bytes(self, register: int, count: int) -> bytes:
        """`count` bytes of a register, the most significant first. Raises: OSError with the errno of the bus."""
        ...


@dataclass(frozen=True)
class Ina228Settings:
    """How an INA228 is wired and configured; `averages` pairs of conversions make one sample: 4 give 220 Hz.

    `counts` makes it a counter of joules. The range is 0.16 V over the shunt, 11 A on the 0.015 ohm of breakout boards;
    `gain`, `offset_a`, `voltage_gain` and `certified` are those of a calibration. A counter cannot correct an offset.

    Raises: InputError if a value is outside what the chip can do.
    """

    shunt_ohm: float = 0.015
    averages: int = 4
    counts: bool = True
    gain: float = 1.0
    offset_a: float = 0.0
    voltage_gain: float = 1.0
    certified: float | None = None
    fast: bool = False
    rephase_every: int = 0  # the accumulator sees every phase

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shunt_ohm) and self.shunt_ohm > 0):
            raise InputError(f"a shunt has more than 0 ohm, got {self.shunt_ohm!r}: breakout boards carry 0.015 (R015)")
        if self.averages not in _AVERAGES:
            raise InputError(f"it averages {', '.join(map(str, _AVERAGES))} conversions, not {self.averages!r}")

    @property
    def _count(self) -> int:
        return 1 if self.fast else self.averages

    @property
    def _code(self) -> int:
        return 0 if self.fast else _CURRENT_CODE

    @property
    def config(self) -> int:
        """The word of the converter's configuration: continuous shunt and bus voltage."""
        return _CURRENT_AND_BUS << 12 | _BUS_CODE << 9 | self._code << 6 | _AVERAGES.index(self._count)

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
        """The current of one step."""
        return _SHUNT_LSB_V / self.shunt_ohm

    @property
    def step_j(self) -> float:
        """The energy of one step of the accumulator."""
        return _ENERGY_STEPS * self.step_a

    @property
    def range_a(self) -> float:
        """The current at the end of the range."""
        return _STEPS * self.step_a * self.gain

    @property
    def resolution_w(self) -> float:
        """The smallest step of power at 5 V; of the counter, a step of it in a cycle."""
        return self.step_j / self.cycle_s if self.counts else self.step_a * _NOMINAL_BUS_V

    @property
    def accuracy(self) -> MeterAccuracy:
        """The largest errors by the data sheet, at 25 C, and of the shunt."""
        offset_w = 1e-6 / self.shunt_ohm * _NOMINAL_BUS_V
        if self.certified is not None:
            return MeterAccuracy("shunt certificate, INA228 data sheet", self.certified, 0.0, 0.0005, offset_w)
        return MeterAccuracy("INA228 data sheet, R015 shunt", _SHUNT_TOLERANCE, 0.0005, 0.0005, offset_w)

    def faster(self) -> "Ina228Settings":
        """The same with the shortest conversions, as a power meter."""
        return replace(self, fast=True, counts=False)

    def wider(self) -> "Ina228Settings":
        """The same: there is no wider range."""
        return self


class Ina228(InaChip[Ina228Settings]):
    """An INA228; see `InaChip`."""

    bus: ByteBus
    chip_name = "INA228"
    ready_register = _DIAGNOSTIC
    ready_bit = 0x0002
    power_on_config = 0x0000

    def _described(self, name: str, label: str, scope: str) -> MeterInfo:
        info = super()._described(name, label, scope)
        return replace(info, kind="counter", window_s=info.nominal_period_s) if self.settings.counts else info

    def _settings_words(self) -> dict[int, int]:
        return {
            _CONFIG: 0x0000,
            _SHUNT_CAL: _CALIBRATION,
            _OVER_LIMIT: _MARK,
            _ADC_CONFIG: self.settings.config,
        }

    def _set_up(self) -> None:
        self._write(_DIAGNOSTIC, _LATCHED)
        super()._set_up()

    def _stranger(self) -> str | None:
        found = identity(self.bus)
        return None if found == INA228 else found or "it does not name itself"

    def _take(self, ready_word: int) -> Conversion:
        cleared_ns = self._clock.now_ns()  # by the reading of the ready word
        steps, bus = self._signed_20(_VSHUNT), self._signed_20(_VBUS)
        flags = SampleFlags.NONE
        if abs(steps) >= _STEPS - 1:
            flags |= SampleFlags.CLIPPED
        current_a = steps * self.settings.step_a
        if current_a < -0.005 * self.settings.range_a:
            flags |= SampleFlags.REVERSED
        suspect = bus == 0 or self._fresh % _READS_PER_LOOK == 0
        return Conversion(current_a, bus * _BUS_LSB_V, flags, suspect, cleared_ns)

    def read(self) -> PowerSample | EnergyReading | None:
        """The newest conversion, as joules so far if it counts, or None while there is no new one."""
        sample = self._next()
        if sample is None or not self.settings.counts:
            return sample
        steps = int.from_bytes(self._transfer(self.bus.read_bytes, _ENERGY, 5), "big")
        energy_j = steps * self.settings.step_j * self.settings.gain * self.settings.voltage_gain
        return EnergyReading(sample.t_ns + round(self.settings.age_s * 1e9), energy_j, sample.flags)

    def _signed_20(self, register: int) -> int:
        return int.from_bytes(self._transfer(self.bus.read_bytes, register, 3), "big", signed=True) >> 4


def open_ina228(
    *,
    clock: Clock,
    root: Path = Path("/"),
    bus: int = 1,
    address: int | None = None,
    shunt_ohm: float | None = None,
    averages: int = 4,
    counts: bool = True,
    certificate: str | Path | None = None,
) -> Ina228:
    """Open the INA228 at `address` of `/dev/i2c-<bus>`, without one the only INA228 there; see `Ina228Settings`.

    Raises: MeterAmbiguous if several answer.
    """
    from pi_dynn.power.ina.i2c_scan import only_meter_address
    from pi_dynn.power.ina.smbus import open_smbus

    if address is None:
        address = only_meter_address(bus, root, lambda registers: identity(registers) != INA228)
    corrections = calibrated(certificate, shunt_ohm, 0.015)
    settings = Ina228Settings(averages=averages, counts=counts, **corrections)  # type: ignore[arg-type]
    return Ina228(open_smbus(bus, address, root), clock, settings, name="ina228")

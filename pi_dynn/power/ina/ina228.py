"""The INA228 current monitor: 20 bits, and an accumulator that counts joules in hardware.

As a counter it misses nothing between two readings, however late they come. As a power meter it gives volts and
amperes.

Source: TI SLYS021.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pi_dynn.clock import Clock
from pi_dynn.power.certificate import calibrated, data_sheet_accuracy
from pi_dynn.power.ina.pairs import PairChip, PairSettings, open_pair_chip
from pi_dynn.power.ina.registers import INA228, RegisterBus
from pi_dynn.power.meter import NOMINAL_V, EnergyReading, MeterAccuracy, MeterInfo, PowerSample

_CONFIG, _ADC_CONFIG, _SHUNT_CAL, _VSHUNT, _VBUS, _ENERGY, _DIAGNOSTIC, _OVER_LIMIT = 0, 1, 2, 4, 5, 9, 0xB, 0xC
_LATCHED = 0x8000  # of the diagnostic register: conversion ready stays set until it is read
_MARK = 0x7FFE  # a limit that is never used, next to its value after a reset
_SHUNT_LSB_V = 312.5e-9
_STEPS = 1 << 19  # of the 20 bits with sign
_CALIBRATION = 4096  # 13107.2e6 x current LSB x shunt, for a current LSB of one step of the shunt voltage
_ENERGY_STEPS = 16 * 3.2  # one step of the accumulator, in steps of the current at 1 V
_CURRENT_AND_BUS = 0xB


class ByteBus(RegisterBus, Protocol):
    """A bus to a chip that has registers of more than 16 bits, too."""

    def read_bytes(self, register: int, count: int) -> bytes:
        """`count` bytes of a register, the most significant first. Raises: OSError with the errno of the bus."""
        ...


@dataclass(frozen=True)
class Ina228Settings(PairSettings):
    """How an INA228 is wired and configured; see `PairSettings`. 4 averages give 220 Hz.

    `counts` makes it a counter of joules, which cannot correct an offset. The range is 0.16 V over the shunt, 11 A on
    the 0.015 ohm of breakout boards.

    Raises: InputError if a value is outside what the chip can do.
    """

    shunt_ohm: float = 0.015
    rephase_every: int = 0  # the accumulator sees every phase
    counts: bool = True

    BREAKOUT = "0.015 (R015)"
    TIMES_S = (50e-6, 84e-6, 150e-6, 280e-6, 540e-6, 1.052e-3, 2.074e-3, 4.12e-3)
    CURRENT_CODE, BUS_CODE = 5, 1

    @property
    def config(self) -> int:
        """The word of the converter's configuration: continuous shunt and bus voltage."""
        return _CURRENT_AND_BUS << 12 | self.BUS_CODE << 9 | self.current_code << 6 | self.average_code

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
        return self.step_j / self.cycle_s if self.counts else self.step_a * NOMINAL_V

    @property
    def accuracy(self) -> MeterAccuracy:
        """The largest errors by the data sheet, at 25 C, and of the shunt."""
        offset_w = 1e-6 / self.shunt_ohm * NOMINAL_V
        return data_sheet_accuracy("INA228 data sheet", 0.0005, 0.0005, offset_w, self.certified, ", R015 shunt")

    def faster(self) -> "Ina228Settings":
        """The same with the shortest conversions, as a power meter."""
        return replace(self, fast=True, counts=False)


class Ina228(PairChip[Ina228Settings]):
    """An INA228; see `InaChip`."""

    bus: ByteBus
    chip_name = "INA228"
    ready_register = _DIAGNOSTIC
    ready_bit = 0x0002
    power_on_config = 0x0000
    named = INA228
    clipped = _STEPS - 1
    bus_lsb_v = 195.3125e-6

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

    def _steps(self) -> tuple[int, int]:
        return self._signed_20(_VSHUNT), self._signed_20(_VBUS)

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
    corrections = calibrated(certificate, shunt_ohm, 0.015)
    settings = Ina228Settings(averages=averages, counts=counts, **corrections)  # type: ignore[arg-type]
    return open_pair_chip(Ina228, clock, root, bus, address, settings)

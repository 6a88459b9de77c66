"""The configuration of an INA219: register values, ranges, conversion times and the units of its registers.

Source: TI SBOS448G, section 8.6 (registers) and table 5 (conversion times, typical).
"""

import math
from dataclasses import dataclass, replace

from pi_dynn.errors import InputError
from pi_dynn.power.certificate import data_sheet_accuracy
from pi_dynn.power.meter import NOMINAL_V, MeterAccuracy

SHUNT_LSB_V = 10e-6  # at every gain
BUS_LSB_V = 4e-3
POWER_ON_CONFIG = 0x399F

_FAST_ADC_CODE, _FAST_ADC_S = 0x0, 84e-6  # 9 bits: a look at peaks, not a measurement
_RANGES_V = (0.04, 0.08, 0.16, 0.32)  # full scale of the shunt at gain codes 0-3
_SHUNT_ADC = {  # averaged conversions -> (4-bit code, seconds)
    1: (0x3, 532e-6),
    2: (0x9, 1.06e-3),
    4: (0xA, 2.13e-3),
    8: (0xB, 4.26e-3),
    16: (0xC, 8.51e-3),
    32: (0xD, 17.02e-3),
    64: (0xE, 34.05e-3),
    128: (0xF, 68.10e-3),
}
_BUS_ADC_CODE, _BUS_ADC_S = 0x3, 532e-6  # 12 bits once: the bus voltage is steady, and no current is measured meanwhile
_CONTINUOUS = 0x7
# Largest errors at 25 C of the A grade, section 7.5: gain of the current and of the bus voltage, offsets by range.
_GAIN_ERROR = _VOLTAGE_ERROR = 0.005
_OFFSETS_V = (100e-6, 125e-6, 150e-6, 200e-6)


@dataclass(frozen=True)
class Ina219Settings:
    """How an INA219 is wired and configured.

    `max_current_a` is the largest expected current (default: all that the shunt allows, 0.32 V / shunt); the range is
    the finest that holds it. `shunt_averages` conversions make one sample: 8 give 209 Hz with the current integrated
    89 % of the time. `bus_range_v` is 16 or 32. `gain`, `offset_a` and `voltage_gain` correct current and voltage by a
    calibration, accurate to the share `certified`; None: as accurate as data sheet and shunt. `rephase_every` samples
    the conversions restart at a random phase; 0 never. `fast` takes the shortest conversions, 9 bits each.

    Raises: InputError if a value is outside what the chip can do.
    """

    shunt_ohm: float = 0.1
    max_current_a: float | None = None
    bus_range_v: int = 16
    shunt_averages: int = 8
    gain: float = 1.0
    rephase_every: int = 32
    offset_a: float = 0.0
    voltage_gain: float = 1.0
    certified: float | None = None
    fast: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shunt_ohm) and self.shunt_ohm > 0):
            raise InputError(f"a shunt has more than 0 ohm, got {self.shunt_ohm!r}: breakout boards carry 0.1 (R100)")
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise InputError(f"a gain correction is above 0, got {self.gain!r}: 1.0 corrects nothing")
        if not (0 < self.full_scale_v <= _RANGES_V[-1] + 1e-12):
            raise InputError(
                f"{self.max_current_a!r} A through {self.shunt_ohm!r} ohm drop {self.full_scale_v:.4g} V, "
                f"the INA219 takes 0 to {_RANGES_V[-1]} V: use a smaller shunt"
            )
        if self.shunt_averages not in _SHUNT_ADC:
            raise InputError(
                f"the INA219 averages {', '.join(map(str, _SHUNT_ADC))} conversions, not {self.shunt_averages!r}"
            )
        if self.bus_range_v not in (16, 32):
            raise InputError(f"the bus range is 16 or 32 V, got {self.bus_range_v!r}")
        if self.rephase_every < 0:
            raise InputError(f"rephase_every counts samples, got {self.rephase_every!r}: 0 switches it off")

    @property
    def full_scale_v(self) -> float:
        """Voltage over the shunt at the largest expected current."""
        return _RANGES_V[-1] if self.max_current_a is None else self.max_current_a * self.shunt_ohm

    @property
    def _gain_code(self) -> int:
        return next(code for code, range_v in enumerate(_RANGES_V) if self.full_scale_v <= range_v + 1e-12)

    @property
    def range_a(self) -> float:
        """The current at the end of the range."""
        return _RANGES_V[self._gain_code] / self.shunt_ohm * self.gain

    @property
    def accuracy(self) -> MeterAccuracy:
        """The largest errors of the chip and its shunt; those of the current from the certificate if there is one."""
        offset_w = _OFFSETS_V[self._gain_code] / self.shunt_ohm * NOMINAL_V
        errors = (_GAIN_ERROR, _VOLTAGE_ERROR, offset_w)
        return data_sheet_accuracy("INA219 data sheet", *errors, self.certified, ", R100 shunt")

    @property
    def config(self) -> int:
        """The configuration word: continuous shunt and bus."""
        range_bit = int(self.bus_range_v == 32)
        shunt_code = _FAST_ADC_CODE if self.fast else _SHUNT_ADC[self.shunt_averages][0]
        bus_code = _FAST_ADC_CODE if self.fast else _BUS_ADC_CODE
        return range_bit << 13 | self._gain_code << 11 | bus_code << 7 | shunt_code << 3 | _CONTINUOUS

    @property
    def calibration(self) -> int:
        """The calibration word for a current LSB of largest current / 32767; even, 2 to 0xFFFE."""
        word = int(0.04096 * 32767 / self.full_scale_v)  # 0.04096 / (current LSB x shunt), section 8.5.1
        return max(2, min(0xFFFE, word & 0xFFFE))

    @property
    def shunt_limit(self) -> int:
        """The shunt register at the end of the range; this value or more is clipped."""
        return 4000 << self._gain_code

    @property
    def bus_limit(self) -> int:
        """The bus register at the end of the range."""
        return round(self.bus_range_v / BUS_LSB_V)

    @property
    def current_s(self) -> float:
        """Time over which the current of one sample is averaged."""
        return self.shunt_s

    @property
    def age_s(self) -> float:
        """From the middle of that time to the end of the cycle: shunt, then bus, then it says it is ready."""
        return self.bus_s + 0.5 * self.shunt_s

    def faster(self) -> "Ina219Settings":
        """The same with the shortest conversions."""
        return replace(self, fast=True)

    def wider(self) -> "Ina219Settings":
        """The same with the widest range."""
        return replace(self, max_current_a=None)

    @property
    def shunt_s(self) -> float:
        """Time of the shunt conversions of one sample."""
        return _FAST_ADC_S if self.fast else _SHUNT_ADC[self.shunt_averages][1]

    @property
    def bus_s(self) -> float:
        """Time of the bus conversion that follows."""
        return _FAST_ADC_S if self.fast else _BUS_ADC_S

    @property
    def cycle_s(self) -> float:
        """Time from sample to sample."""
        return self.shunt_s + self.bus_s

    @property
    def resolution_w(self) -> float:
        """Smallest step of power at 5 V: one step of the 12-bit converter, divided by averaging."""
        step_v = max(SHUNT_LSB_V, SHUNT_LSB_V * (1 << self._gain_code) / self.shunt_averages)
        return step_v / self.shunt_ohm * NOMINAL_V

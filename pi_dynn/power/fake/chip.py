"""A register-accurate simulation of an INA219: conversions on a simulated clock, stale registers, overflow, reset.

It is written from the datasheet (TI SBOS448G) and shares no constant with the driver, so that tests find an error
in either. Its state is brought up to the clock at each bus access.
"""

import math
import random

from pi_dynn.clock import Clock
from pi_dynn.power.fake.waveform import Waveform

POWER_ON_CONFIG = 0x399F
CONFIG, SHUNT, BUS, POWER, CURRENT, CALIBRATION = range(6)

# Conversion time in seconds and bits of each 4-bit ADC code, table 5. Codes 4-7 repeat 0-3 (bit 2 is "don't care").
_SINGLE_S = (84e-6, 148e-6, 276e-6, 532e-6)
_AVERAGED_S = {8: 532e-6, 9: 1.06e-3, 10: 2.13e-3, 11: 4.26e-3, 12: 8.51e-3, 13: 17.02e-3, 14: 34.05e-3, 15: 68.10e-3}
_WAKE_UP_S = 40e-6  # from power-down, section 8.5.1


def conversion(code: int) -> tuple[float, int, int]:
    """Seconds, bits and number of averaged conversions of a 4-bit ADC code."""
    if code < 8:
        return _SINGLE_S[code & 3], 9 + (code & 3), 1
    return _AVERAGED_S[code], 12, 2 ** (code - 8)


class Ina219Chip:
    """The chip, its shunt and the load behind it.

    `load` draws its power at `bus_v` volts. `noise_v` is the standard deviation of one 12-bit shunt conversion,
    `offset_v` its constant error, `gain_error` and `voltage_error` those of current and bus voltage (0.005 is half a
    percent); `bus_v` drops by `line_ohm` times the current, as behind a long cable;
    `oscillator` stretches every conversion time (1.1 is a slow chip at the datasheet's limit).
    """

    def __init__(
        self,
        clock: Clock,
        load: Waveform,
        *,
        shunt_ohm: float = 0.1,
        bus_v: float = 5.1,
        noise_v: float = 0.0,
        offset_v: float = 0.0,
        gain_error: float = 0.0,
        voltage_error: float = 0.0,
        line_ohm: float = 0.0,
        oscillator: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.clock = clock
        self.load = load
        self.shunt_ohm = shunt_ohm
        self.bus_v = bus_v
        self._noise_v = noise_v
        self._offset_v = offset_v
        self._gain = 1.0 + gain_error
        self._voltage_gain = 1.0 + voltage_error
        self.line_ohm = line_ohm
        self._oscillator = oscillator
        self._noise = random.Random(seed)
        self.brown_out()

    def brown_out(self) -> None:
        """Reset all registers to their power-on values and restart conversions, as after a dip of the supply."""
        self._calibration = 0
        self._shunt = self._bus = self._power = self._current = 0
        self._overflow = False
        self._ready = False
        self._configure(POWER_ON_CONFIG)

    # Bus access

    def read_word(self, register: int) -> int:
        """The 16 bits of `register` now. Reading POWER clears conversion-ready (section 8.6.3.2)."""
        self._convert()
        words = {
            CONFIG: self._config,
            SHUNT: self._shunt & 0xFFFF,
            BUS: self._bus << 3 | self._ready << 1 | self._overflow,
            POWER: self._power,
            CURRENT: self._current & 0xFFFF,
            CALIBRATION: self._calibration,
        }
        if register == POWER:
            self._ready = False
        return words.get(register, 0)  # what the other 250 read is not specified; it is no manufacturer's number

    def write_word(self, register: int, value: int) -> None:
        """Write CONFIG or CALIBRATION; the chip ignores writes to the others."""
        self._convert()
        if register == CONFIG and value & 0x8000:
            self.brown_out()
        elif register == CONFIG:
            self._configure(value & 0x3FFF)
        elif register == CALIBRATION:
            self._calibration = value & 0xFFFE  # bit 0 is void
            self._multiply()

    # Conversions

    def _configure(self, config: int) -> None:
        was_asleep = getattr(self, "_config", POWER_ON_CONFIG) & 7 in (0, 4)
        self._config = config
        mode = config & 7
        self._shunt_s, self._shunt_bits, self._shunt_averages = conversion(config >> 3 & 0xF)
        self._bus_s, self._bus_bits, _ = conversion(config >> 7 & 0xF)
        self._shunt_s *= self._oscillator * (mode & 1)
        self._bus_s *= self._oscillator * (mode >> 1 & 1)
        self._start_s = self.clock.now_ns() * 1e-9 + (_WAKE_UP_S if was_asleep else 0.0)
        self._shunts_done = self._buses_done = 0
        if mode not in (0, 4):
            self._ready = False

    @property
    def cycle_s(self) -> float:
        """Time of one shunt and bus conversion as configured."""
        return self._shunt_s + self._bus_s

    def _convert(self) -> None:
        """Convert up to the time of the clock. Of several finished conversions only the last is computed."""
        cycle_s = self.cycle_s
        if cycle_s == 0.0:
            return
        elapsed_s = self.clock.now_ns() * 1e-9 - self._start_s
        cycles = max(0, int(elapsed_s / cycle_s))
        shunts = cycles + (elapsed_s - cycles * cycle_s >= self._shunt_s)
        if not self._config & 4:  # triggered: one conversion, then sleep
            cycles, shunts = min(cycles, 1), min(shunts, 1)
        if cycles > self._buses_done:
            if cycles > self._shunts_done:
                self._convert_shunt(cycles)
            self._bus = self._bus_word(cycles) if self._config & 2 else self._bus
            self._buses_done = cycles
            self._multiply()
            self._ready = True
        if shunts > self._shunts_done:
            self._convert_shunt(shunts)
            self._current = self._wrap(self._shunt * self._calibration // 4096)

    def _convert_shunt(self, number: int) -> None:
        """The `number`-th shunt conversion since the start: the mean over its own window."""
        self._shunts_done = number
        if not self._config & 1:
            return
        start_s = self._start_s + (number - 1) * self.cycle_s
        part_s = self._shunt_s / self._shunt_averages
        divider = 1 << (self._config >> 11 & 3)
        step_v = 10e-6 * divider * (1 << 12 - self._shunt_bits)
        limit_v = 4000 * divider * 10e-6
        total_v = 0.0
        before_j = self.load.cumulative_j(start_s)
        for index in range(self._shunt_averages):
            after_j = self.load.cumulative_j(start_s + (index + 1) * part_s)
            power_w, before_j = (after_j - before_j) / part_s, after_j
            value_v = self._gain * power_w / self._load_v(power_w) * self.shunt_ohm + self._offset_v
            if self._noise_v:
                value_v += self._noise.gauss(0.0, self._noise_v)
            total_v += max(-limit_v, min(limit_v, step_v * round(value_v / step_v)))  # each conversion has the range
        self._shunt = round(total_v / self._shunt_averages / 10e-6)

    def _load_v(self, power_w: float) -> float:
        """The voltage behind the supply's cable at this power."""
        return 0.5 * (self.bus_v + math.sqrt(max(0.0, self.bus_v**2 - 4 * self.line_ohm * power_w)))

    def _bus_word(self, number: int) -> int:
        """The `number`-th bus conversion: the mean voltage over its own window, after that of the shunt."""
        start_s = self._start_s + (number - 1) * self.cycle_s + self._shunt_s
        end_s = start_s + self._bus_s
        power_w = (self.load.cumulative_j(end_s) - self.load.cumulative_j(start_s)) / self._bus_s
        step_v = 4e-3 * (1 << 12 - self._bus_bits)
        limit = 8000 if self._config & 0x2000 else 4000
        value_v = self._voltage_gain * self._load_v(power_w)
        return max(0, min(limit, round(round(value_v / step_v) * step_v / 4e-3)))

    def _multiply(self) -> None:
        """Current = shunt x calibration / 4096, power = current x bus / 5000; overflow beyond 16 bits."""
        current = self._shunt * self._calibration // 4096
        power = abs(current) * self._bus // 5000
        self._overflow = not -0x8000 <= current <= 0x7FFF or power > 0xFFFF
        self._current, self._power = self._wrap(current), power & 0xFFFF

    @staticmethod
    def _wrap(current: int) -> int:
        return (current + 0x8000) % 0x10000 - 0x8000  # overflowed registers hold whatever is left in 16 bits

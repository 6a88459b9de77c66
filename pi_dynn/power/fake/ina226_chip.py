"""A register-accurate simulation of an INA226 or INA260, written from the data sheets (TI SBOS547, SBOS656).

It shares no constant with the driver, so that tests find an error in either.
"""

import random

from pi_dynn.clock import Clock
from pi_dynn.power.fake.waveform import Waveform

_TIMES_S = (140e-6, 204e-6, 332e-6, 588e-6, 1.1e-3, 2.116e-3, 4.156e-3, 8.244e-3)
_AVERAGES = (1, 4, 16, 64, 128, 256, 512, 1024)
_WAKE_UP_S = 40e-6


class Ina226Chip:
    """The chip and the load behind it, which draws its power at `bus_v` volts.

    `shunt_ohm` is that of an INA226; None makes it an INA260, whose register 1 is in steps of 1.25 mA. `noise_a` is the
    standard deviation of one conversion of the current.
    """

    def __init__(
        self,
        clock: Clock,
        load: Waveform,
        *,
        shunt_ohm: float | None = 0.1,
        bus_v: float = 5.1,
        noise_a: float = 0.0,
        oscillator: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.clock, self.load, self.bus_v = clock, load, bus_v
        self._internal = shunt_ohm is None
        self._step_a = 1.25e-3 if shunt_ohm is None else 2.5e-6 / shunt_ohm
        self._noise_a, self._oscillator = noise_a, oscillator
        self._noise = random.Random(seed)
        self.brown_out()

    def brown_out(self) -> None:
        """Reset all registers to their power-on values and restart conversions."""
        self._current = self._bus = self._alert_limit = 0
        self._configure(0x6127 if self._internal else 0x4127)

    def _configure(self, config: int) -> None:
        asleep = getattr(self, "_config", 7) & 7 in (0, 4)
        self._config = config
        self._start_s = self.clock.now_ns() * 1e-9 + (_WAKE_UP_S if asleep else 0.0)
        self._done, self._ready = 0, False

    def read_word(self, register: int) -> int:
        """The 16 bits of `register` now; reading register 6 clears the conversion-ready flag."""
        self._convert()
        if register == 6:
            word, self._ready = self._ready << 3, False
            return word
        words = {
            0: self._config,
            1: self._current & 0xFFFF,
            2: self._bus,
            7: self._alert_limit,
            0xFE: 0x5449,
            0xFF: 0x2270 if self._internal else 0x2260,
        }
        return words.get(register, 0)

    def write_word(self, register: int, value: int) -> None:
        """Write the configuration or the alert limit; the others are not used."""
        self._convert()
        if register == 0 and value & 0x8000:
            self.brown_out()
        elif register == 0:
            self._configure(value & 0x0FFF | (0x6000 if self._internal else 0x4000))
        elif register == 7:
            self._alert_limit = value

    def _convert(self) -> None:
        if self._config & 7 != 7:
            return
        count = _AVERAGES[self._config >> 9 & 7]
        current_s = _TIMES_S[self._config >> 3 & 7] * self._oscillator
        pair_s = current_s + _TIMES_S[self._config >> 6 & 7] * self._oscillator
        done = int((self.clock.now_ns() * 1e-9 - self._start_s) / (count * pair_s))
        if done <= self._done:
            return
        self._done, self._ready = done, True
        first_s = self._start_s + (done - 1) * count * pair_s
        total = 0.0
        for index in range(count):  # of current and voltage in turns
            from_s = first_s + index * pair_s
            energy_j = self.load.cumulative_j(from_s + current_s) - self.load.cumulative_j(from_s)
            current_a = energy_j / current_s / self.bus_v
            if self._noise_a:
                current_a += self._noise.gauss(0.0, self._noise_a)
            total += max(-0x8000, min(0x7FFF, round(current_a / self._step_a)))
        self._current = round(total / count)
        self._bus = max(0, min(0x7FFF, round(self.bus_v / 1.25e-3)))

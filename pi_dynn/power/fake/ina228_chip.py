"""A register-accurate simulation of an INA228, written from the data sheet (TI SLYS021), for a range of 163.84 mV.

It shares no constant with the driver, so that tests find an error in either.
"""

from pi_dynn.clock import Clock
from pi_dynn.power.fake.waveform import Waveform

_TIMES_S = (50e-6, 84e-6, 150e-6, 280e-6, 540e-6, 1.052e-3, 2.074e-3, 4.12e-3)
_AVERAGES = (1, 4, 16, 64, 128, 256, 512, 1024)
_RESET = {0: 0x0000, 1: 0xFB68, 2: 0x1000, 0xB: 0x0001, 0xC: 0x7FFF}


class Ina228Chip:
    """The chip and the load behind it, which draws its power at `bus_v` volts; `gain_error` is that of the current."""

    def __init__(
        self,
        clock: Clock,
        load: Waveform,
        *,
        shunt_ohm: float = 0.015,
        bus_v: float = 5.1,
        gain_error: float = 0.0,
        oscillator: float = 1.0,
    ) -> None:
        self.clock, self.load, self.bus_v = clock, load, bus_v
        self._shunt_ohm, self._gain, self._oscillator = shunt_ohm, 1.0 + gain_error, oscillator
        self.brown_out()

    def brown_out(self) -> None:
        """Reset all registers to their power-on values, clear the accumulator and restart conversions."""
        self._words = dict(_RESET)
        self._vshunt = self._vbus = 0
        self._joules, self._counted_s = 0.0, self.clock.now_ns() * 1e-9
        self._restart()

    def _restart(self) -> None:
        self._start_s, self._done, self._ready = self.clock.now_ns() * 1e-9, 0, False

    def read_word(self, register: int) -> int:
        """The 16 bits of `register` now; reading register 0x0B clears the conversion-ready flag if it is latched."""
        self._convert()
        if register == 0xB:
            word = self._words[0xB] & ~2 | self._ready << 1
            if self._words[0xB] & 0x8000:
                self._ready = False
            return word
        return {0x3E: 0x5449, 0x3F: 0x2281}.get(register, self._words.get(register, 0))

    def read_bytes(self, register: int, count: int) -> bytes:
        """The bytes of a register of 24 or 40 bits, the most significant first."""
        self._convert()
        if register in (4, 5):
            value = (self._vshunt if register == 4 else self._vbus) << 4
            return value.to_bytes(3, "big", signed=True)[:count]
        if register == 9:
            current_lsb_a = self._words[2] / 13107.2e6 / self._shunt_ohm
            return int(self._joules / (16 * 3.2 * current_lsb_a)).to_bytes(5, "big")[:count]
        return self.read_word(register).to_bytes(2, "big")[:count]

    def write_word(self, register: int, value: int) -> None:
        """Write a register of 16 bits; the configurations restart conversions."""
        self._convert()
        if register == 0 and value & 0x8000:
            self.brown_out()
            return
        self._words[register] = value
        if register == 1:
            self._restart()

    def _convert(self) -> None:
        config = self._words[1]
        count = _AVERAGES[config & 7]
        current_s = _TIMES_S[config >> 6 & 7] * self._oscillator
        pair_s = current_s + _TIMES_S[config >> 9 & 7] * self._oscillator
        if config >> 12 not in (0xB, 0xF):
            return
        if config >> 12 == 0xF:
            pair_s += _TIMES_S[config >> 3 & 7] * self._oscillator  # the temperature as well
        done = int((self.clock.now_ns() * 1e-9 - self._start_s) / (count * pair_s))
        if done <= self._done:
            return
        self._done, self._ready = done, True
        end_s = self._start_s + done * count * pair_s
        first_s = end_s - count * pair_s
        total = 0.0
        for index in range(count):
            from_s = first_s + index * pair_s
            power_w = (self.load.cumulative_j(from_s + current_s) - self.load.cumulative_j(from_s)) / current_s
            steps = self._gain * power_w / self.bus_v * self._shunt_ohm / 312.5e-9
            total += max(-(1 << 19), min((1 << 19) - 1, round(steps)))
        self._vshunt = round(total / count)
        self._vbus = round(self.bus_v / 195.3125e-6)
        self._joules += self._gain * (self.load.cumulative_j(end_s) - self.load.cumulative_j(self._counted_s))
        self._counted_s = end_s

"""Simulated loads whose energy is known in closed form, for the simulated chip and for expected values in tests.

Times are seconds of the simulated clock, powers watts, energies joules.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pi_dynn.errors import InputError


class Waveform(Protocol):
    """A load, given by the integral of its power over time."""

    def cumulative_j(self, t_s: float) -> float:
        """Energy up to `t_s`, from an arbitrary but fixed start."""
        ...


def waveform_energy_j(waveform: Waveform, t0_s: float, t1_s: float) -> float:
    """The exact energy from `t0_s` to `t1_s`."""
    return waveform.cumulative_j(t1_s) - waveform.cumulative_j(t0_s)


@dataclass(frozen=True)
class Constant:
    """Constant power."""

    power_w: float

    def cumulative_j(self, t_s: float) -> float:
        return self.power_w * t_s


@dataclass(frozen=True)
class Ramp:
    """`power_w` at `t0_s`, rising by `slope_w_per_s` before and after: an idle board that warms up."""

    power_w: float
    slope_w_per_s: float
    t0_s: float = 0.0

    def cumulative_j(self, t_s: float) -> float:
        past_s = t_s - self.t0_s
        return past_s * (self.power_w + 0.5 * self.slope_w_per_s * past_s)


@dataclass(frozen=True)
class Square:
    """`high_w` for the first `duty` of each period, `low_w` for the rest: inference after inference."""

    low_w: float
    high_w: float
    period_s: float
    duty: float = 0.5
    t0_s: float = 0.0

    def cumulative_j(self, t_s: float) -> float:
        periods, phase_s = divmod(t_s - self.t0_s, self.period_s)
        high_s = self.duty * self.period_s
        whole_j = self.low_w * self.period_s + (self.high_w - self.low_w) * high_s
        return periods * whole_j + self.low_w * phase_s + (self.high_w - self.low_w) * min(phase_s, high_s)


@dataclass(frozen=True)
class During:
    """Another waveform from `t0_s` to `t1_s`, nothing outside."""

    waveform: Waveform
    t0_s: float
    t1_s: float = math.inf

    def cumulative_j(self, t_s: float) -> float:
        return self.waveform.cumulative_j(min(max(t_s, self.t0_s), self.t1_s))


@dataclass(frozen=True)
class Sum:
    """Several waveforms on one supply."""

    parts: Sequence[Waveform]

    def cumulative_j(self, t_s: float) -> float:
        return sum([part.cumulative_j(t_s) for part in self.parts])


class Switched:
    """A load whose power is set step by step with `set_power(t_s, power_w)`."""

    def __init__(self, power_w: float) -> None:
        self._t_s = [0.0]
        self._power_w = [power_w]
        self._energy_j = [0.0]

    def set_power(self, t_s: float, power_w: float) -> None:
        """Draw `power_w` from `t_s` on.

        Raises: InputError if `t_s` lies before the last change, because that energy may have been read already.
        """
        if len(self._t_s) > 1 and t_s < self._t_s[-1]:
            raise InputError(f"a load cannot change at {t_s!r} s, before its last change at {self._t_s[-1]!r} s")
        self._energy_j.append(self.cumulative_j(t_s))
        self._t_s.append(t_s)
        self._power_w.append(power_w)

    def cumulative_j(self, t_s: float) -> float:
        last = max(0, bisect_right(self._t_s, t_s) - 1)
        return self._energy_j[last] + self._power_w[last] * (t_s - self._t_s[last])

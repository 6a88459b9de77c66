"""Integration of samples to joules: the trapezoidal rule for power, differences for counters.

Repeated values are kept: dropping them would turn plateaus into ramps.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pi_dynn.errors import TraceInvalid
from pi_dynn.power.meter import UNUSABLE


def counter_difference_j(before_j: float, after_j: float, range_j: float) -> float:
    """Joules between two readings of a counter that wraps to 0 after `range_j`.

    A single wrap is corrected; two wraps between readings cannot be detected.

    >>> counter_difference_j(10.0, 15.0, range_j=100.0)
    5.0
    >>> counter_difference_j(95.0, 5.0, range_j=100.0)
    10.0

    Raises: TraceInvalid if a reading lies outside the range.
    """
    if not (range_j > 0.0 and 0.0 <= before_j <= range_j and 0.0 <= after_j <= range_j):
        raise TraceInvalid(
            f"an energy counter of range {range_j!r} J read {before_j!r} J and then {after_j!r} J: "
            "the range file is wrong or the domain was changed, reopen the meter"
        )
    return (after_j - before_j) if after_j >= before_j else (after_j + range_j - before_j)


def either(power_w: NDArray[np.float64] | None, counter_j: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """The one of the two that is not None. Raises: TraceInvalid if both are."""
    values = power_w if power_w is not None else counter_j
    if values is None:
        raise TraceInvalid("a trace needs watts or the joules of a counter, it has neither: record it again")
    return values


class CumulativeEnergy:
    """Joules since the first usable sample, as a function of time.

    Between samples power (of a counter: energy) is interpolated linearly; before the first and after the last
    sample power is constant, for at most the gap that `check_trace` allows. Windows are differences of one function,
    so adjacent windows add up exactly.

    Raises: TraceInvalid if fewer than two samples are usable.
    """

    def __init__(
        self,
        t_ns: NDArray[np.int64],
        power_w: NDArray[np.float64] | None,
        counter_j: NDArray[np.float64] | None,
        flags: NDArray[np.int64],
    ) -> None:
        """All arrays (N,); either watts or the joules of a counter, the other is None."""
        usable = (flags & int(UNUSABLE)) == 0
        self.t_ns = t_ns[usable]
        if len(self.t_ns) < 2:
            raise TraceInvalid(
                f"{len(self.t_ns)} usable power samples of {len(t_ns)}, 2 are needed: "
                "check the wiring, or let the window last longer than two samples"
            )
        values = either(power_w, counter_j)[usable]
        step_s = np.diff(self.t_ns) * 1e-9
        if power_w is not None:
            self._power_w = values
            self._slope_w_per_s = np.append(np.diff(values) / step_s, 0.0)
            self._energy_j = np.concatenate(([0.0], np.cumsum(0.5 * (values[1:] + values[:-1]) * step_s)))
        else:
            if (np.diff(values) < 0).any():
                raise TraceInvalid("the energy counter ran backwards: it was not unwrapped, record it again")
            power_w = np.diff(values) / step_s
            self._power_w = np.append(power_w, power_w[-1])
            self._slope_w_per_s = np.zeros(len(values))
            self._energy_j = values - values[0]

    def at(self, t_ns: ArrayLike) -> NDArray[np.float64]:
        """Joules at each of `t_ns` (any shape, nanoseconds)."""
        t_ns = np.asarray(t_ns, dtype=np.int64)
        left = np.clip(np.searchsorted(self.t_ns, t_ns, side="right") - 1, 0, len(self.t_ns) - 1)
        past_s = (t_ns - self.t_ns[left]) * 1e-9  # negative before the first sample
        slope = np.where(past_s < 0.0, 0.0, self._slope_w_per_s[left])
        energy_j: NDArray[np.float64] = self._energy_j[left] + past_s * (self._power_w[left] + 0.5 * slope * past_s)
        return energy_j

    def count(self, t0_ns: int, t1_ns: int) -> int:
        """The number of usable samples in [t0_ns, t1_ns]."""
        return int(np.searchsorted(self.t_ns, t1_ns, side="right") - np.searchsorted(self.t_ns, t0_ns, side="left"))

    def between(self, t0_ns: int, t1_ns: int) -> float:
        """Joules from `t0_ns` to `t1_ns`.

        Raises: TraceInvalid if the window is empty or holds fewer than two usable samples.
        """
        if t1_ns <= t0_ns:
            raise TraceInvalid(f"a window must end after it starts, got {t0_ns!r} to {t1_ns!r} ns: swap the ends")
        if self.count(t0_ns, t1_ns) < 2:
            raise TraceInvalid(
                f"{self.count(t0_ns, t1_ns)} usable power samples in a window of {(t1_ns - t0_ns) * 1e-9:.6g} s, "
                "2 are needed: measure many inferences in one window and divide"
            )
        start_j, end_j = self.at([t0_ns, t1_ns])
        return float(end_j - start_j)

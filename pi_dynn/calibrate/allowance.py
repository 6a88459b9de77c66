"""An allowance of energy for each day, kept by moving along a curve of operating points."""

from collections.abc import Sequence

from pi_dynn.calibrate.records import OperatingPoint
from pi_dynn.errors import CalibrationError

DAY_S = 86_400.0
KEPT_S = 6 * 3600.0  # the allowance of so long is kept for busier hours, at most
SPREAD_S = 3600.0  # what was kept is spent over so long
_WEIGHT = 0.1  # of the newest pause in the mean pause between answers


class EnergyAllowance:
    """The dearest point of a curve that the allowance pays for, at the rate at which answers come.

    The allowance accrues evenly. What is left over is kept for up to KEPT_S, so quiet hours pay for busy ones. It
    begins with the allowance of SPREAD_S.

    Attributes: spent_j.

    Raises: CalibrationError for an empty curve, or an allowance that is not above 0.
    """

    def __init__(self, curve: Sequence[OperatingPoint], joules_per_day: float, joules_per_cost: float) -> None:
        """`joules_per_cost` is the energy of one unit of the curve's cost: 1 for joules, the power for seconds."""
        if not curve or not joules_per_day > 0.0:
            raise CalibrationError(f"{joules_per_day:g} J a day for {len(curve)} points: give more than 0 of both")
        self._curve = sorted(curve, key=lambda point: point.mean_cost)
        self._power_w, self._joules_per_cost = joules_per_day / DAY_S, joules_per_cost
        self._kept_j, self.spent_j = self._power_w * SPREAD_S, 0.0
        self._last_s: float | None = None
        self._paid_s: float | None = None
        self._pause_s = 0.0  # between answers, in the mean

    def point(self, now_s: float) -> OperatingPoint | None:
        """The point for an answer at `now_s`; None if there is nothing left to pay it with."""
        if self._last_s is not None:
            accrued_j = self._power_w * max(0.0, now_s - self._last_s)
            self._kept_j = min(self._kept_j + accrued_j, self._power_w * KEPT_S)
        self._last_s = now_s
        if self._kept_j <= 0.0:
            return None
        each_j = self._pause_s * (self._power_w + self._kept_j / SPREAD_S)
        paid = [point for point in self._curve if point.mean_cost * self._joules_per_cost <= each_j]
        return paid[-1] if paid else self._curve[0]

    def spend(self, cost: float, now_s: float) -> None:
        """Pay for an answer that was given at `now_s`, by its cost in the unit of the curve."""
        energy_j = cost * self._joules_per_cost
        self.spent_j += energy_j
        self._kept_j -= energy_j
        if self._paid_s is not None:
            self._pause_s += _WEIGHT * (now_s - self._paid_s - self._pause_s)
        self._paid_s = now_s

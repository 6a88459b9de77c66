"""Cheaper operating points while a board is hot or throttled or its battery is low, with hysteresis."""

from collections.abc import Sequence
from dataclasses import dataclass

from pi_dynn.calibrate.records import OperatingPoint
from pi_dynn.errors import CalibrationError


@dataclass(frozen=True)
class BoardState:
    """The state of a board; None for what is unknown. `throttled` names the throttle conditions present now."""

    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()
    battery_percent: float | None = None


@dataclass(frozen=True)
class Limits:
    """The limits of temperature and battery, with hysteresis.

    Cost falls at `hot_c` or more, or at `low_battery_percent` or less; it rises again once the board is at
    `cool_c` or less and at `full_battery_percent` or more; between the limits it stays. After each step there is a
    pause of `hold_s`.
    """

    hot_c: float = 75.0
    cool_c: float = 68.0
    low_battery_percent: float = 20.0
    full_battery_percent: float = 40.0
    hold_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.cool_c < self.hot_c or not self.low_battery_percent < self.full_battery_percent:
            raise CalibrationError(
                f"limits {self.cool_c:g}..{self.hot_c:g} C and {self.low_battery_percent:g}.."
                f"{self.full_battery_percent:g} % must leave room between low and high"
            )


class CurveWalker:
    """Moves along a curve of operating points: heat, throttling and a low battery make it cheaper.

    It starts at the dearest point of `curve` that costs at most `start_cost`, and never costs more.

    Raises: CalibrationError for a curve with no point cheaper than the start.
    """

    def __init__(self, curve: Sequence[OperatingPoint], start_cost: float, limits: Limits | None = None) -> None:
        allowed = [point for point in sorted(curve, key=lambda point: point.mean_cost) if point.mean_cost <= start_cost]
        if len(allowed) < 2:
            raise CalibrationError(
                "the record's curve has no point cheaper than its own: calibrate with a goal that leaves room"
            )
        self._curve, self._limits = allowed, limits or Limits()
        self._place = len(allowed) - 1
        self._moved_s: float | None = None

    @property
    def point(self) -> OperatingPoint:
        """The operating point in use."""
        return self._curve[self._place]

    def watch(self, state: BoardState, now_s: float) -> bool:
        """Move one step if `state` calls for it and the pause is over; returns whether it moved."""
        if self._moved_s is not None and now_s - self._moved_s < self._limits.hold_s:
            return False
        place = self._place + self._direction(state)
        if place == self._place or not 0 <= place < len(self._curve):
            return False
        self._place, self._moved_s = place, now_s
        return True

    def _direction(self, state: BoardState) -> int:
        """-1 for cheaper, 1 for dearer, 0 to stay."""
        limits, heat, charge = self._limits, state.temperature_c, state.battery_percent
        hot = heat is not None and heat >= limits.hot_c
        low = charge is not None and charge <= limits.low_battery_percent
        if hot or low or state.throttled:
            return -1
        cool = heat is None or heat <= limits.cool_c
        charged = charge is None or charge >= limits.full_battery_percent
        return 1 if cool and charged else 0

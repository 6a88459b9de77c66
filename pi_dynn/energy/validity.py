"""Reasons why the figures of an energy run are invalid, each with its limit and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass

from pi_dynn.board import BoardSnapshot, invalidating_changes
from pi_dynn.energy.records import EnergyRecording
from pi_dynn.power import IdlePower, MeterInfo, RunEnergy, TraceQuality
from pi_dynn.power.estimate import plausible_power_w

MAX_RANGE_SHARE = 0.9  # a peak above it may be clipped within one conversion
MAX_SLOWDOWN = 0.05
MAX_SAG = 0.05
MAX_IDLE_RANGE = 0.5
LEAST_PI_V = 4.63
"""Below this a Raspberry Pi reports under-voltage (raspberrypi/documentation, power-supplies.adoc)."""
_SHUNTS_OHM = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_BOARD_INPUT = "board input"


@dataclass(frozen=True)
class Supply:
    """The supply as the meter saw it, None where it gives no volts or amperes.

    Means over the idle windows and the trials, the lowest voltage of a sample in any of them, and the largest current.
    """

    idle_v: float | None = None
    active_v: float | None = None
    lowest_v: float | None = None
    idle_a: float | None = None
    active_a: float | None = None
    peak_a: float | None = None

    @property
    def line_ohm(self) -> float:
        """The resistance of supply and cable, from the sag under load; 0 if it is unknown or none."""
        if self.idle_v is None or self.active_v is None or self.idle_a is None or self.active_a is None:
            return 0.0
        step_a = self.active_a - self.idle_a
        return max(0.0, (self.idle_v - self.active_v) / step_a) if step_a > 0 else 0.0

    @property
    def sag_limit_w(self) -> float:
        """The largest error of power because volts and amperes are read one after the other.

        The product of their means exceeds the mean of their product by line_ohm x variance of the current, and the
        variance of what lies between two limits is at most a quarter of their difference squared.
        """
        if self.peak_a is None or self.idle_a is None:
            return 0.0
        return self.line_ohm * ((self.peak_a - self.idle_a) / 2) ** 2


def window_reasons(windows: dict[str, TraceQuality]) -> list[str]:
    """What is wrong with the samples; a reason common to several windows is said once."""
    labels_of: dict[str, list[str]] = {}
    for label, quality in windows.items():
        for reason in quality.invalid_reasons:
            labels_of.setdefault(reason, []).append(label)
    return [f"{labels[0]}: {reason}" if len(labels) == 1 else reason for reason, labels in labels_of.items()]


def board_reasons(recording: EnergyRecording, info: MeterInfo) -> list[str]:
    """What changed about the board between the snapshots before and after."""
    before, after = recording.board, recording.board_after
    return list(invalidating_changes(before, after, measured=info.measured)) if before and after else []


def supply_reasons(supply: Supply, info: MeterInfo, board: BoardSnapshot | None) -> list[str]:
    """What the meter's own volts and amperes say against the run."""
    reasons = []
    if supply.peak_a is not None and info.range_a is not None and supply.peak_a > MAX_RANGE_SHARE * info.range_a:
        reasons.append(
            f"peak current {supply.peak_a:.3g} A is over {MAX_RANGE_SHARE:.0%} of the range of {info.range_a:.3g} A, "
            "so that peaks may be cut off: use a smaller shunt or a wider range"
        )
    if supply.idle_v is not None and supply.active_v is not None and supply.idle_v > 0:
        sag = 1.0 - supply.active_v / supply.idle_v
        if sag > MAX_SAG:
            reasons.append(
                f"the supply sags from {supply.idle_v:.2f} to {supply.active_v:.2f} V (limit {MAX_SAG:.0%}): "
                "use a shorter, thicker cable and a stronger supply"
            )
    of_a_pi = board is not None and board.model.startswith("Raspberry Pi") and info.scope.endswith(_BOARD_INPUT)
    if of_a_pi and supply.lowest_v is not None and supply.lowest_v < LEAST_PI_V:
        reasons.append(
            f"the supply fell to {supply.lowest_v:.2f} V, a Raspberry Pi needs {LEAST_PI_V} V: "
            "use a 5.1 V supply and a short cable"
        )
    return reasons


def power_reasons(energy: RunEnergy, info: MeterInfo, board: BoardSnapshot | None) -> list[str]:
    """Why the powers cannot be those of this board: another rail, another chip, or another shunt."""
    known = plausible_power_w(board.model) if board is not None and info.scope.endswith(_BOARD_INPUT) else None
    if known is None or board is None or known[0] <= energy.idle_power_w and energy.active_power_w <= known[1]:
        return []
    wrong_w = energy.idle_power_w if energy.idle_power_w < known[0] else energy.active_power_w
    reason = (
        f"{wrong_w:.2f} W is not the input of a {board.model}, which draws {known[0]:.1f} to {known[1]:.0f} W: "
        "check what the meter is wired to"
    )
    fitting = [
        ohm
        for ohm in _SHUNTS_OHM
        if info.shunt_ohm is not None
        and known[0] <= energy.idle_power_w * info.shunt_ohm / ohm
        and energy.active_power_w * info.shunt_ohm / ohm <= known[1]
    ]
    if fitting:
        reason += f", and its shunt: {' or '.join(f'{ohm:g}' for ohm in fitting)} ohm would fit"
    return [reason]


def idle_reasons(idle: IdlePower, energy: RunEnergy) -> list[str]:
    """Why idle power moved too much to be subtracted."""
    net_w = energy.active_power_w - energy.idle_power_w
    if net_w <= 0 or idle.range_w <= MAX_IDLE_RANGE * net_w:
        return []
    return [
        f"idle power moved by {idle.range_w:.3g} W between windows, over {MAX_IDLE_RANGE:.0%} of the {net_w:.3g} W "
        "that the work adds: close other programs, let the board warm up"
    ]


def slowdown_reasons(slowdown: float | None) -> list[str]:
    """Why sampling disturbed the work."""
    if slowdown is None or slowdown <= MAX_SLOWDOWN:
        return []
    return [
        f"answers took {1 + slowdown:.2f} times as long while they were sampled (limit {1 + MAX_SLOWDOWN:.2f}): "
        "use fewer threads, a faster I2C bus, or a second board as the meter"
    ]


def trial_reasons(recording: EnergyRecording, finished: int, unbracketed: Sequence[str]) -> list[str]:
    """What is missing of the run."""
    reasons = ["interrupted"] if recording.interrupted else []
    if finished < recording.planned_trials:
        reasons.append(f"{finished} of {recording.planned_trials} trials were finished")
    reasons += [f"{label}: idle power was not measured before and after it" for label in unbracketed]
    return reasons

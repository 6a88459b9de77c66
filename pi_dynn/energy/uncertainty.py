"""The uncertainty budget of the energy of one inference, after the GUM. docs/energy.md derives every part.

Source: JCGM 100:2008, Evaluation of measurement data - Guide to the expression of uncertainty in measurement.
"""

import math
from collections.abc import Sequence
from typing import Literal

from pi_dynn.energy.records import UncertaintyPart
from pi_dynn.power import MeterInfo, RunEnergy

COVERAGE_FACTOR = 2.0


def uncertainty_budget(
    energy: RunEnergy, info: MeterInfo, *, sag_limit_w: float, slowdown: float
) -> list[UncertaintyPart]:
    """The parts of the uncertainty of a run with intervals; those of the meter only if its accuracy is known.

    `sag_limit_w` is the largest error of power because volts and amperes are read one after the other,
    `slowdown` the share by which sampling made the trials longer.
    """
    net_j, gross_j, latency_s = energy.net_j, energy.gross_j, energy.latency_s
    step_j = _rectangular(0.5 * info.resolution_w) * latency_s
    step_w = abs(energy.active_power_w - energy.idle_power_w)
    # A window begins and ends between two samples, half a period from either at most.
    edges_j = math.sqrt(2) * _rectangular(0.5 * info.nominal_period_s) * step_w / energy.n
    sag_j = _rectangular(sag_limit_w) * latency_s
    slow = _rectangular(max(0.0, slowdown))
    parts = [
        UncertaintyPart("trials", "A", _half(energy.net_ci95_j), _half(energy.gross_ci95_j)),
        UncertaintyPart("resolution", "B", math.sqrt(2) * step_j, step_j),
        UncertaintyPart("window edges", "B", edges_j, edges_j),
        UncertaintyPart("volts after amperes", "B", sag_j, sag_j),
        UncertaintyPart("slowed by sampling", "B", slow * abs(net_j), slow * abs(gross_j)),
    ]
    if info.accuracy is not None:
        shares = {"shunt": info.accuracy.shunt, "gain": info.accuracy.gain, "voltage": info.accuracy.voltage}
        parts += [
            UncertaintyPart(what, "B", _rectangular(share) * abs(net_j), _rectangular(share) * abs(gross_j))
            for what, share in shares.items()
            if share
        ]
        parts.append(UncertaintyPart("offset", "B", 0.0, _rectangular(info.accuracy.offset_w) * latency_s))
    return parts


def expanded_j(parts: Sequence[UncertaintyPart], which: Literal["net_j", "gross_j"]) -> float:
    """The expanded uncertainty (k = 2) of independent parts."""
    return COVERAGE_FACTOR * math.hypot(*(getattr(part, which) for part in parts))


def scale_share(info: MeterInfo) -> float | None:
    """The standard uncertainty common to all readings of a meter, as a share; None if its accuracy is unknown.

    It is the same in two runs with one meter: a share of their difference, and nothing in their ratio.
    """
    if info.accuracy is None:
        return None
    return math.hypot(
        *(_rectangular(share) for share in (info.accuracy.shunt, info.accuracy.gain, info.accuracy.voltage))
    )


def _rectangular(limit: float) -> float:
    """The standard uncertainty of an error that is anywhere within the limits (GUM, 4.3.7)."""
    return limit / math.sqrt(3)


def _half(interval_j: tuple[float, float] | None) -> float:
    """The standard uncertainty that, expanded, is the interval of Student's t: few trials count as few."""
    return 0.0 if interval_j is None else (interval_j[1] - interval_j[0]) / 2 / COVERAGE_FACTOR

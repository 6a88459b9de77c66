"""Energy beside a benchmark: the fields kept with it, the table after the usual one, and what got worse."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pi_dynn.energy_records import EnergyResult
from pi_dynn.errors import InputError
from pi_dynn.report.energy import interval, millijoules, milliseconds, source, watts
from pi_dynn.report.text import table

HEADERS = ("energy per call", "net", "95 % interval", "gross", "time", "idle", "active", "samples/s", "source")
_FIELD = {"net": "energy_mj_per_inference", "gross": "energy_gross_mj"}


def extra_info(result: EnergyResult) -> dict[str, Any]:
    """What is kept with a benchmark, in `extra_info`."""
    return {
        "energy_mj_per_inference": _milli(result.net_j),
        "energy_ci95_mj": None if result.net_ci95_j is None else [_milli(bound) for bound in result.net_ci95_j],
        "energy_gross_mj": _milli(result.gross_j),
        "energy_resolved": result.resolved,
        "idle_power_w": result.idle_power_w,
        "active_power_w": result.active_power_w,
        "sample_rate_hz": result.sample_rate_hz,
        "largest_gap_s": result.largest_gap_s,
        "n_inferences": result.n,
        "trials": result.trials,
        "meter": result.meter,
        "scope": result.scope,
        "label": result.label,
        "measured": result.measured,
        "valid": result.valid,
        "invalid_reasons": list(result.invalid_reasons),
    }


def _milli(energy_j: float | None) -> float | None:
    return None if energy_j is None else energy_j * 1e3


def benchmark_table(results: Sequence[EnergyResult]) -> str:
    """One line per benchmark whose energy was measured, and the reasons where one is invalid."""
    rows = [
        (
            result.name,
            millijoules(result.net_j),
            interval(result.net_ci95_j),
            millijoules(result.gross_j),
            milliseconds(result.elapsed_s),
            watts(result.idle_power_w),
            watts(result.active_power_w),
            f"{result.sample_rate_hz:.1f}",
            source(result),
        )
        for result in results
    ]
    reasons = [f"INVALID {result.name}: {reason}" for result in results for reason in result.invalid_reasons]
    return "\n".join([table(HEADERS, rows), *reasons])


class EnergyLimit(NamedTuple):
    """How much more than before an energy may be: `share` of it, or `energy_mj` millijoules."""

    what: str
    share: float | None
    energy_mj: float | None

    def broken_by(self, now: Mapping[str, Any], before: Mapping[str, Any]) -> str | None:
        """Why the fields `now` break the limit against those of `before`; None if they do not.

        Energies that may not be compared, or of which one is missing, break it too: a check that cannot be made
        has not been passed.
        """
        field = _FIELD[self.what]
        for name in ("label", "scope"):
            if now.get(name) != before.get(name):
                return f"{name} differs, {now.get(name)!r} now and {before.get(name)!r} before: use the same meter"
        if not now.get("valid") or now.get(field) is None or before.get(field) is None:
            return f"no valid {self.what} energy to compare: measure again"
        limit_mj = before[field] + (self.energy_mj if self.share is None else self.share * abs(before[field]))
        if now[field] <= limit_mj:
            return None
        return f"{self.what} energy {now[field]:.4g} mJ, was {before[field]:.4g} mJ (limit {limit_mj:.4g} mJ)"


def parse_limit(text: str) -> EnergyLimit:
    """`net:10%`, `gross:5%`, or `net:0.5` for half a millijoule. Raises: InputError."""
    what, _, amount = text.partition(":")
    try:
        if what not in _FIELD:
            raise ValueError(what)
        value = float(amount.removesuffix("%"))
        if not value >= 0:
            raise ValueError(amount)
    except ValueError as error:
        raise InputError(f"{text!r} is no limit on energy: give net:10%, gross:5%, or net:0.5 in mJ") from error
    if amount.endswith("%"):
        return EnergyLimit(what, value / 100, None)
    return EnergyLimit(what, None, value)

"""Saved runs side by side: what each saves against the first of its kind."""

from collections.abc import Sequence
from dataclasses import replace

from pi_dynn.energy_records import EnergyResult
from pi_dynn.power import improvement

_MUST_MATCH = ("label", "scope", "rails", "shunt_ohm", "gain")


def compare_results(results: Sequence[EnergyResult]) -> list[EnergyResult]:
    """The results with their improvement on the first of the same board and data set, in the order given.

    Where the two may not be compared (another scope, other rails, another shunt) there is none, and a note says why.
    A run that brought its own baseline keeps what it measured in turns with it.
    """
    first: dict[tuple[str, str], EnergyResult] = {}
    compared = []
    for result in results:
        board = result.board["model"] if result.board is not None else ""
        base = first.setdefault((board, result.dataset), result)
        if base is result or result.improvement is not None:
            compared.append(result)
            continue
        reasons = [
            f"{result.name} is not compared with {base.name}: {what} is {getattr(result, what)!r}, "
            f"there {getattr(base, what)!r}"
            for what in _MUST_MATCH
            if getattr(result, what) != getattr(base, what)
        ]
        known = not reasons and base.net_j is not None and base.net_j > 0 and result.net_j is not None
        saved = improvement(base.net_j, result.net_j) if known else None
        compared.append(replace(result, improvement=saved, notes=[*result.notes, *reasons]))
    return compared

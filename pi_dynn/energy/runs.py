"""Saved energy runs (recording, raw trace and figures in one JSON file), and comparisons between runs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from math import hypot
from pathlib import Path

from pi_dynn import files
from pi_dynn.energy.protocol import IDLE_AFTER, IDLE_BEFORE, Measurement
from pi_dynn.energy.records import EnergyDifference, EnergyRecording, EnergyResult, EnergyRun
from pi_dynn.energy.results import energy_results
from pi_dynn.errors import InputError
from pi_dynn.power import Trace, improvement
from pi_dynn.records import file_kind, read_record


def save_run(path: str | Path, measurement: Measurement, results: Sequence[EnergyResult]) -> None:
    """Write a run to `path`; what was there survives a crash."""
    run = EnergyRun([result.to_dict() for result in results], *measurement)
    files.write_text(path, json.dumps(run.to_dict(), allow_nan=False) + "\n")


def is_run(path: str | Path) -> bool:
    """Whether `path` holds a saved run, and not a bare trace or something else."""
    return file_kind(path) == EnergyRun.KIND


def load_run(path: str | Path) -> Measurement:
    """The recording and trace in `path`. Raises: InputError if it is missing, damaged or no saved run."""
    run = read_record(EnergyRun, path, InputError, "make one with `pi-dynn energy --save`")
    places = [*run.recording.idle, *(one.span for one in run.recording.trials)]
    if any(place is not None and not 0 <= place < len(run.trace.spans) for place in places):
        raise InputError(f"{path}: names spans that its trace does not have; measure again")
    return Measurement(run.recording if run.recording.idle else _joined_by_label(run.recording, run.trace), run.trace)


def _joined_by_label(recording: EnergyRecording, trace: Trace) -> EnergyRecording:
    """A recording of version 0.1, which has labels only, with the indices of its spans."""
    places = {span.label: place for place, span in enumerate(trace.spans)}
    trials = [replace(one, span=places.get(one.label)) for one in recording.trials]
    idle = [places[label] for label in (IDLE_BEFORE, IDLE_AFTER) if label in places]
    return replace(recording, trials=trials, idle=idle)


def replay_run(path: str | Path) -> tuple[Measurement, list[EnergyResult]]:
    """A saved run, and its figures computed again from the raw trace."""
    measurement = load_run(path)
    return measurement, energy_results(*measurement)


_MUST_MATCH = ("label", "scope", "rails", "shunt_ohm", "gain")


def baselines(results: Sequence[EnergyResult], across: bool = False) -> list[EnergyResult]:
    """The baseline of each result: the first result of its board and data set, or of all with `across`."""
    first: dict[tuple[str, str], EnergyResult] = {}
    bases = []
    for result in results:
        board = result.board.model if result.board is not None else ""
        bases.append(first.setdefault(("", "") if across else (board, result.dataset), result))
    return bases


def obstacles(result: EnergyResult, base: EnergyResult) -> list[str]:
    """Reasons why the two may not be compared; empty if they may."""
    return [
        f"{result.name} is not compared with {base.name}: {what} is {getattr(result, what)!r}, "
        f"there {getattr(base, what)!r}"
        for what in _MUST_MATCH
        if getattr(result, what) != getattr(base, what)
    ]


def compare_results(results: Sequence[EnergyResult], across: bool = False) -> list[EnergyResult]:
    """The results with their improvement on their baseline, in the order given.

    If the two may not be compared (another scope, other rails, another shunt) there is none, and a note says
    why; with `across` the first result is the baseline of all, whatever its board, data set and scope.
    A run with its own baseline keeps the improvement measured in alternation with it.
    """
    compared = []
    for result, base in zip(results, baselines(results, across), strict=True):
        if base is result or result.improvement is not None:
            compared.append(result)
            continue
        reasons = [] if across else obstacles(result, base)
        saved = None
        if not reasons and base.net_j is not None and base.net_j > 0 and result.net_j is not None:
            saved = improvement(base.net_j, result.net_j)
        compared.append(replace(result, improvement=saved, notes=[*result.notes, *reasons]))
    return compared


def energy_differences(results: Sequence[EnergyResult], across: bool = False) -> list[EnergyDifference]:
    """Each result less its baseline, with an interval and a plain verdict, where both have one.

    The runs are independent, so the half-widths of their intervals add in quadrature.
    """
    differences = []
    for result, base in zip(results, baselines(results, across), strict=True):
        if base is result or (not across and obstacles(result, base)):
            continue
        if result.net_j is None or base.net_j is None or not result.net_ci95_j or not base.net_ci95_j:
            continue
        change_j = result.net_j - base.net_j
        # Intervals may be asymmetric: the upper side of one and the lower side of the other make the change larger.
        low_j = change_j - hypot(result.net_j - result.net_ci95_j[0], base.net_ci95_j[1] - base.net_j)
        high_j = change_j + hypot(result.net_ci95_j[1] - result.net_j, base.net_j - base.net_ci95_j[0])
        verdict = "less" if high_j < 0 else "more" if low_j > 0 else "no difference shown"
        differences.append(EnergyDifference(result.name, base.name, change_j, (low_j, high_j), verdict))
    return differences

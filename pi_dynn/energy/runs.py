"""Saved energy runs: recording, raw trace and figures in one JSON file."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pi_dynn import files
from pi_dynn.energy.protocol import Measurement
from pi_dynn.energy.records import EnergyRecording, EnergyResult, EnergyRun
from pi_dynn.energy.results import energy_results
from pi_dynn.errors import InputError
from pi_dynn.power import Trace
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
    idle = [places[label] for label in ("idle before", "idle after") if label in places]
    return replace(recording, trials=trials, idle=idle)


def replay_run(path: str | Path) -> tuple[Measurement, list[EnergyResult]]:
    """A saved run, and its figures computed again from the raw trace."""
    measurement = load_run(path)
    return measurement, energy_results(*measurement)

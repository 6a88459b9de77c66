"""Saved energy runs: the recording, the raw trace and the figures, in one JSON file."""

import json
from collections.abc import Sequence
from pathlib import Path

from pi_dynn import files
from pi_dynn.board import BoardSnapshot
from pi_dynn.energy_records import EnergyRecording, EnergyResult
from pi_dynn.errors import InputError
from pi_dynn.jobs.energy_protocol import Measurement
from pi_dynn.jobs.energy_results import energy_results
from pi_dynn.power import Trace

FORMAT = "pi_dynn.energy/1"


def save_run(path: str | Path, measurement: Measurement, results: Sequence[EnergyResult]) -> None:
    """Write a run to `path`; what was there survives a crash. The results are for other programs to read."""
    document = {
        "format": FORMAT,
        "results": [result.to_dict() for result in results],
        "recording": measurement.recording.to_dict(),
        "trace": measurement.trace.to_dict(),
    }
    files.write_text(path, json.dumps(document, allow_nan=False) + "\n")


def is_run(path: str | Path) -> bool:
    """Whether `path` holds a saved run, and not a bare trace or something else."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT


def load_run(path: str | Path) -> Measurement:
    """What was recorded in `path`.

    Raises: InputError if there is no such file, or if it is not a saved run.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise InputError(f"{str(path)!r} is not a saved energy run: make one with `pi-dynn energy --save`")
        recording = EnergyRecording.from_dict(document["recording"])
        for board in (recording.board, recording.board_after):
            if board is not None:
                BoardSnapshot.from_dict(board)
        return Measurement(recording, Trace.from_dict(document["trace"]))
    except OSError as error:
        raise InputError(f"cannot read the run {str(path)!r} ({error.strerror}): check the path") from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the saved run {str(path)!r} is damaged ({error!r}): measure again") from error


def replay_run(path: str | Path) -> tuple[Measurement, list[EnergyResult]]:
    """A saved run, its figures worked out anew from the raw trace."""
    measurement = load_run(path)
    return measurement, energy_results(*measurement)

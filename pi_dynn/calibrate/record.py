"""Calibration records as files, and whether one belongs to a bundle."""

import json
from collections.abc import Sequence
from pathlib import Path

from pi_dynn.calibration_records import SCHEMA, CalibrationRecord, OperatingPoint
from pi_dynn.errors import CalibrationError
from pi_dynn.files import write_text


def save_record(path: str | Path, record: CalibrationRecord) -> None:
    """Write a record as JSON; what was there survives a crash."""
    write_text(path, json.dumps(record.to_dict(), indent=1, allow_nan=False) + "\n")


def load_record(path: str | Path) -> CalibrationRecord:
    """The record in a file. Raises: CalibrationError if there is none, or it is of another kind or damaged."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise CalibrationError(f"{path}: not a calibration record; make one with `pi-dynn calibrate`")
        record = CalibrationRecord.from_dict(values)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except CalibrationError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CalibrationError(f"{path}: a damaged calibration record ({error!r}); calibrate again") from error
    if len(record.thresholds) != len(record.exits) - 1 or len(record.costs) != len(record.exits):
        raise CalibrationError(f"{path}: thresholds, exits and costs do not fit together; calibrate again")
    return record


def check_bundle(record: CalibrationRecord, sha256: str, name: str | Path) -> None:
    """Refuse a record made for another bundle. Raises: CalibrationError."""
    if record.bundle != sha256:
        raise CalibrationError(
            f"{name}: was made for the bundle {record.bundle[:12]}, and this one is {sha256[:12]}: "
            "calibrate this bundle, or use the other with --bundle"
        )


def best_within(
    records: Sequence[CalibrationRecord], budget: float, unit: str
) -> tuple[CalibrationRecord, OperatingPoint]:
    """The most accurate point of all curves that costs at most `budget` in `unit`, and its record.

    Raises: CalibrationError if no record has costs in that unit, or none is that cheap.
    """
    curves = [(record, point) for record in records if record.cost_unit == unit for point in record.curve]
    if not curves:
        raise CalibrationError(
            f"no calibration record of this bundle has its costs in {unit!r}: calibrate with measured costs (--costs)"
        )
    fitting = [(record, point) for record, point in curves if point.mean_cost <= budget]
    if not fitting:
        least = min(point.mean_cost for _, point in curves)
        raise CalibrationError(f"a budget of {budget:g} {unit} is below the least on record, {least:g}: allow more")
    return max(fitting, key=lambda pair: (pair[1].accuracy, -pair[1].mean_cost))


def find_records(place: str | Path, sha256: str) -> list[CalibrationRecord]:
    """Records of a bundle: the one in a file, or all those in a folder that were made for it.

    Raises: CalibrationError if there is none.
    """
    place = Path(place)
    if not place.is_dir():
        record = load_record(place)
        check_bundle(record, sha256, place)
        return [record]
    found = [load_record(path) for path in sorted(place.glob("*.json")) if _is_record(path)]
    found = [record for record in found if record.bundle == sha256]
    if not found:
        raise CalibrationError(
            f"{place}: no record for the bundle {sha256[:12]}; make one with `pi-dynn calibrate DATASET -o RECORD`"
        )
    return found


def _is_record(path: Path) -> bool:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.get("schema") == SCHEMA

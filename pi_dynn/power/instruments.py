"""Power traces of other instruments: CSV files of a Joulescope, Otii Arc, Nordic PPK2 or a USB power meter.

Their columns are found by what their headers say, `Timestamp(ms)`, `Main current (A)`, `Current(uA)`, `power [mW]`, and
are put into SI units.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pi_dynn.errors import InputError, MeterNotFound, TraceInvalid
from pi_dynn.power.meter import MEASURED, MeterInfo
from pi_dynn.power.trace import Trace

_COLUMN = re.compile(r"time|current|volt|power", re.IGNORECASE)
_UNIT = re.compile(r"[\[(]\s*([a-zµμ]+)\s*[\])]|[_ ]([a-zµμ]+)$", re.IGNORECASE)
_PREFIXES = {"n": 1e-9, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3}
_BASES = {"time": "s", "current": "a", "volt": "v", "power": "w"}


def load_instrument_trace(path: str | Path, instrument: str, volts: float | None = None) -> Trace:
    """The trace in a CSV file of an instrument, which is named in the figures and counts as measured.

    Lines before the header, and columns that are neither time, current, voltage nor power, are left aside. `volts` is
    the supply's voltage for instruments that record amperes only.

    Raises: MeterNotFound if there is no such file; TraceInvalid for one without times and power, or with times that
    do not rise; InputError if power needs `volts`.
    """
    rows = _rows(Path(path))
    header = next((i for i, row in enumerate(rows) if sum(bool(_COLUMN.search(cell)) for cell in row) >= 2), None)
    if header is None:
        raise TraceInvalid(f"{path}: has no header with a time and a current or power: export it as CSV with a header")
    columns = _columns(rows[header], path)
    if "time" not in columns:
        raise TraceInvalid(f"{path}: has no column of times among {', '.join(rows[header])}: export it with timestamps")
    values = {name: _numbers(rows[header + 1 :], *column, path) for name, column in columns.items()}
    t_s, current_a = values["time"], values.get("current")
    voltage_v = values.get("volt")
    if voltage_v is None:
        voltage_v = np.full(len(t_s), np.nan if volts is None else volts)
    power_w = values.get("power")
    if power_w is None:
        if current_a is None or np.isnan(voltage_v).all():
            raise InputError(f"{path}: holds no power and no voltage: give the supply's voltage with --trace-volts 5.1")
        power_w = voltage_v * current_a
    steps_s = np.diff(t_s)
    if len(t_s) < 2 or not (steps_s > 0).all():
        raise TraceInvalid(f"{path}: holds {len(t_s)} samples whose times do not all rise: export it again")
    info = MeterInfo(
        name=instrument,
        scope="board input",
        rails=(),
        resolution_w=0.0,
        nominal_period_s=float(np.median(steps_s)),
        measured=True,
        label=MEASURED,
        window_s=float(np.median(steps_s)),  # all of these instruments integrate
    )
    t_ns = np.round((t_s - t_s[0]) * 1e9).astype(np.int64)
    unknown = np.full(len(t_s), np.nan)
    flags = np.zeros(len(t_s), dtype=np.int64)
    return Trace(info, t_ns, power_w, None, voltage_v, unknown if current_a is None else current_a, flags)


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MeterNotFound(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise TraceInvalid(f"{path}: not text; export the trace as CSV") from error
    delimiter = ";" if text.count(";") > text.count(",") else ","
    return [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]


def _columns(header: Sequence[str], path: str | Path) -> dict[str, tuple[int, float]]:
    """Place and factor to SI units of the first column of each kind."""
    columns: dict[str, tuple[int, float]] = {}
    for place, cell in enumerate(header):
        found = _COLUMN.search(cell)
        if found is None or found.group().lower() in columns:
            continue
        kind = found.group().lower()
        unit = _UNIT.search(cell.strip().lstrip("#"))
        columns[kind] = place, _factor(kind, (unit.group(1) or unit.group(2)) if unit else "", cell, path)
    return columns


def _factor(kind: str, unit: str, cell: str, path: str | Path) -> float:
    base = _BASES[kind]
    if not unit or unit.lower() in (kind, "stamp", "seconds", "sec"):
        return 1.0
    if unit[-1:].lower() != base or unit[:-1] not in _PREFIXES:
        raise TraceInvalid(f"{path}: the column {cell!r} has the unit {unit!r}: expected one such as m{base.upper()}")
    return _PREFIXES[unit[:-1]]


def _numbers(rows: Sequence[Sequence[str]], place: int, factor: float, path: str | Path) -> NDArray[np.float64]:
    try:
        return np.array([float(row[place]) for row in rows]) * factor
    except (ValueError, IndexError) as error:
        raise TraceInvalid(f"{path}: a row has no number in column {place + 1} ({error}): export it again") from error

"""The record of one sampling run: every sample, the spans marked in it, and what went wrong."""

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pi_dynn import files
from pi_dynn.errors import InputError, MeterNotFound, TraceInvalid
from pi_dynn.power.meter import SIMULATED, MeterInfo

SCHEMA = "pi_dynn.trace/1"


class Span(NamedTuple):
    """A stretch of time [t0_ns, t1_ns] in which something with a name happened."""

    t0_ns: int
    t1_ns: int
    label: str

    @property
    def duration_s(self) -> float:
        """From the first to the last moment."""
        return (self.t1_ns - self.t0_ns) * 1e-9


class ThrottleMark(NamedTuple):
    """The firmware's throttle bits as they were found at `t_ns`."""

    t_ns: int
    bits: int


@dataclass(frozen=True, eq=False)
class Trace:
    """Everything one sampler saw.

    Shapes: all arrays (N,). A power meter fills `power_w`, a counter `energy_j`; the other is None.
    `voltage_v` and `current_a` are nan where the meter does not give them. `stale_reads` counts polls
    that found nothing new; `error` says what ended the sampling early, if anything did.
    """

    info: MeterInfo
    t_ns: np.ndarray
    power_w: np.ndarray | None
    energy_j: np.ndarray | None
    voltage_v: np.ndarray
    current_a: np.ndarray
    flags: np.ndarray
    spans: tuple[Span, ...] = ()
    throttle: tuple[ThrottleMark, ...] = ()
    stale_reads: int = 0
    retries: int = 0
    error: str | None = None

    def __post_init__(self) -> None:
        value = self.power_w if self.info.kind == "power" else self.energy_j
        other = self.energy_j if self.info.kind == "power" else self.power_w
        if value is None or other is not None:
            raise TraceInvalid(f"a trace of a {self.info.kind} meter holds that and nothing else: record it again")
        columns = (self.t_ns, value, self.voltage_v, self.current_a, self.flags)
        if len({column.shape for column in columns}) != 1 or self.t_ns.ndim != 1:
            lengths = [column.shape for column in columns]
            raise TraceInvalid(f"the columns of a trace differ in length ({lengths}): the file is damaged")
        if (np.diff(self.t_ns) <= 0).any():
            raise TraceInvalid("the times of a trace do not rise: the samples are out of order, record them again")

    @property
    def values(self) -> np.ndarray:
        """Watts of a power meter, joules of a counter."""
        return self.power_w if self.power_w is not None else self.energy_j

    def labelled(self, label: str) -> tuple[Span, ...]:
        """The spans marked with `label`, in the order in which they were marked."""
        return tuple(span for span in self.spans if span.label == label)

    def with_spans(self, spans: tuple[Span, ...]) -> "Trace":
        """A copy whose spans are `spans`."""
        return replace(self, spans=tuple(spans))

    def to_dict(self) -> dict[str, Any]:
        """The trace as plain values; missing volts and amperes are None."""
        return {
            "schema": SCHEMA,
            "info": self.info.to_dict(),
            "t_ns": self.t_ns.tolist(),
            "power_w": None if self.power_w is None else self.power_w.tolist(),
            "energy_j": None if self.energy_j is None else self.energy_j.tolist(),
            "voltage_v": _to_plain(self.voltage_v),
            "current_a": _to_plain(self.current_a),
            "flags": self.flags.tolist(),
            "spans": [list(span) for span in self.spans],
            "throttle": [list(mark) for mark in self.throttle],
            "stale_reads": self.stale_reads,
            "retries": self.retries,
            "error": self.error,
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Trace":
        """The inverse of `to_dict`: the same samples to the last bit.

        Raises: TraceInvalid if this is not a trace or the columns do not fit together.
        """
        if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
            found = fields.get("schema") if isinstance(fields, dict) else type(fields).__name__
            raise TraceInvalid(
                f"not a power trace (schema {found!r}, expected {SCHEMA!r}): give a file saved by --save"
            )
        try:
            return cls(
                info=MeterInfo.from_dict(fields["info"]),
                t_ns=np.asarray(fields["t_ns"], dtype=np.int64),
                power_w=_column(fields["power_w"]),
                energy_j=_column(fields["energy_j"]),
                voltage_v=np.asarray(fields["voltage_v"], dtype=np.float64),
                current_a=np.asarray(fields["current_a"], dtype=np.float64),
                flags=np.asarray(fields["flags"], dtype=np.int64),
                spans=tuple(Span(*span) for span in fields["spans"]),
                throttle=tuple(ThrottleMark(*mark) for mark in fields["throttle"]),
                stale_reads=fields["stale_reads"],
                retries=fields["retries"],
                error=fields["error"],
            )
        except (KeyError, TypeError, InputError) as error:
            raise TraceInvalid(f"the power trace is damaged ({error!r}): record it again") from error

    def save(self, path: str | Path) -> None:
        """Write the trace to `path` as JSON; what was there survives a crash."""
        files.write_text(path, json.dumps(self.to_dict(), allow_nan=False) + "\n")


def _to_plain(column: np.ndarray) -> list[float | None]:
    return [None if value != value else value for value in column.tolist()]  # nan is not JSON


def _column(values: list[float] | None) -> np.ndarray | None:
    return None if values is None else np.asarray(values, dtype=np.float64)


def load_trace(path: str | Path) -> Trace:
    """Read a trace from `path`: JSON saved by `Trace.save`, a run that holds one under "trace", or CSV.

    A CSV file has a header with `t_s` and `power_w`, and if you like `voltage_v` and `current_a`;
    it is how the log of any other meter comes in. What it came from is not known, so its label is
    SIMULATED until someone says otherwise.

    Raises: MeterNotFound if there is no such file, TraceInvalid if it does not hold a trace.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise MeterNotFound(f"cannot read the power trace {str(path)!r} ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise TraceInvalid(f"{str(path)!r} is not text: give a JSON or CSV power trace") from error
    if path.suffix.lower() == ".csv":
        return _from_csv(path, text)
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise TraceInvalid(f"{str(path)!r} is not JSON ({error}): give a file saved by --save") from error
    if isinstance(fields, dict) and "schema" not in fields and "trace" in fields:
        fields = fields["trace"]
    return Trace.from_dict(fields)


def _from_csv(path: Path, text: str) -> Trace:
    rows = list(csv.DictReader(text.splitlines()))
    try:
        t_s = np.array([float(row["t_s"]) for row in rows])
        power_w = np.array([float(row["power_w"]) for row in rows])
        optional = {
            name: np.array([float(row.get(name) or "nan") for row in rows]) for name in ("voltage_v", "current_a")
        }
    except (KeyError, TypeError, ValueError) as error:
        raise TraceInvalid(f"{str(path)!r} needs numbers under the columns t_s and power_w ({error!r})") from error
    if len(rows) < 2:
        raise TraceInvalid(f"{str(path)!r} holds {len(rows)} samples: a trace needs 2 or more")
    info = MeterInfo(
        name="csv",
        scope="as recorded (unknown)",
        rails=(),
        resolution_w=0.0,
        nominal_period_s=float(np.median(np.diff(t_s))),
        measured=False,
        label=SIMULATED,
    )
    t_ns = np.round(t_s * 1e9).astype(np.int64)
    return Trace(info, t_ns, power_w, None, **optional, flags=np.zeros(len(rows), dtype=np.int64))

"""The record of one sampling run: samples, marked spans and errors."""

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pi_dynn import files
from pi_dynn.errors import InputError, MeterNotFound, TraceInvalid
from pi_dynn.power.integrate import CumulativeEnergy, either
from pi_dynn.power.meter import SIMULATED, MeterInfo
from pi_dynn.records import Record, read_record


class Span(NamedTuple):
    """A labelled interval of time [t0_ns, t1_ns]."""

    t0_ns: int
    t1_ns: int
    label: str

    @property
    def duration_s(self) -> float:
        """The length of the span."""
        return (self.t1_ns - self.t0_ns) * 1e-9


class ThrottleMark(NamedTuple):
    """The firmware's throttle bits at `t_ns`."""

    t_ns: int
    bits: int


@dataclass(frozen=True, eq=False)
class Trace(Record):
    """All samples and marks of one sampler.

    Shapes: all arrays (N,). A power meter fills `power_w`, a counter `counter_j`; the other is None.
    `voltage_v` and `current_a` are nan where the meter does not give them. A span is identified by its index in
    `spans`; its label is for people. `stale_reads` counts polls without a new sample; `error` says what ended the
    sampling early, if anything did.
    """

    KIND = "power trace"
    SCHEMA = "pi_dynn.trace/1"

    info: MeterInfo
    t_ns: NDArray[np.int64]
    power_w: NDArray[np.float64] | None
    counter_j: NDArray[np.float64] | None
    voltage_v: NDArray[np.float64]
    current_a: NDArray[np.float64]
    flags: NDArray[np.int64]
    spans: tuple[Span, ...] = ()
    throttle: tuple[ThrottleMark, ...] = ()
    stale_reads: int = 0
    retries: int = 0
    error: str | None = None

    def __post_init__(self) -> None:
        value = self.power_w if self.info.kind == "power" else self.counter_j
        other = self.counter_j if self.info.kind == "power" else self.power_w
        if value is None or other is not None:
            raise TraceInvalid(f"a trace of a {self.info.kind} meter holds that and nothing else: record it again")
        columns = (self.t_ns, value, self.voltage_v, self.current_a, self.flags)
        if len({column.shape for column in columns}) != 1 or self.t_ns.ndim != 1:
            lengths = [column.shape for column in columns]
            raise TraceInvalid(f"the columns of a trace differ in length ({lengths}): the file is damaged")
        if (np.diff(self.t_ns) <= 0).any():
            raise TraceInvalid("the times of a trace do not rise: the samples are out of order, record them again")

    @property
    def values(self) -> NDArray[np.float64]:
        """Watts of a power meter, joules of a counter."""
        return either(self.power_w, self.counter_j)

    @cached_property
    def cumulative(self) -> CumulativeEnergy:
        """Joules as a function of time. Raises: TraceInvalid if fewer than two samples are usable."""
        return CumulativeEnergy(self.t_ns, self.power_w, self.counter_j, self.flags)

    def energy_j(self, span: str | Span) -> float:
        """Joules in a span, or in all spans with that label, interpolated at the edges.

        Raises: InputError for a label that no span has; TraceInvalid if a span holds fewer than two usable samples.
        """
        return sum(self.cumulative.between(one.t0_ns, one.t1_ns) for one in self._spans_of(span))

    @property
    def largest_current_a(self) -> float | None:
        """The largest current of all samples, clipped ones included; None if the meter gives none."""
        known = self.current_a[~np.isnan(self.current_a)]
        return float(np.abs(known).max()) if len(known) else None

    def mean_power_w(self, span: str | Span) -> float:
        """Mean power in watts over a span, or over all spans with that label. Raises: as `energy_j` does."""
        return self.energy_j(span) / sum(one.duration_s for one in self._spans_of(span))

    def _spans_of(self, span: str | Span) -> tuple[Span, ...]:
        spans = self.labelled(span) if isinstance(span, str) else (span,)
        if not spans:
            known = ", ".join(dict.fromkeys(repr(one.label) for one in self.spans)) or "none"
            raise InputError(f"the trace has no span {span!r}: it has {known}")
        return spans

    def labelled(self, label: str) -> tuple[Span, ...]:
        """The spans marked with `label`, in the order in which they were marked."""
        return tuple(span for span in self.spans if span.label == label)

    @classmethod
    def from_dict(cls, values: Any) -> "Trace":
        """The inverse of `to_dict`, exact to the last bit; also reads a run with a trace under the key `trace`."""
        inner = values.get("trace") if isinstance(values, dict) else None
        return super().from_dict(with_column_names(values if inner is None else inner))

    def to_dict(self) -> dict[str, Any]:
        """The trace as plain data; the key of the counter's column is `energy_j`, as in all versions."""
        values = super().to_dict()
        return {"energy_j" if key == "counter_j" else key: value for key, value in values.items()}

    def save(self, path: str | Path) -> None:
        """Write the trace to `path` as JSON; what was there survives a crash."""
        files.write_text(path, json.dumps(self.to_dict(), allow_nan=False) + "\n")


def with_column_names(values: Any) -> Any:
    """Plain data of a trace with the counter's column under the field name of `Trace`."""
    return values | {"counter_j": values.get("energy_j")} if isinstance(values, dict) else values


def load_trace(path: str | Path) -> Trace:
    """The trace in `path`: JSON saved by `Trace.save`, a run that holds one under "trace", or CSV.

    A CSV file has a header with `t_s` and `power_w`, and optionally `voltage_v` and `current_a`; use it for the log
    of any other meter. Its source is unknown, so its label is SIMULATED.

    Raises: MeterNotFound if there is no such file, TraceInvalid if it does not hold a trace.
    """
    if Path(path).suffix.lower() == ".csv":
        return _from_csv(Path(path))
    return read_record(Trace, path, TraceInvalid, "give a file saved by --save", MeterNotFound)


def _from_csv(path: Path) -> Trace:
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except OSError as error:
        raise MeterNotFound(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise TraceInvalid(f"{path}: not text; give a JSON or CSV power trace") from error
    try:
        t_s = np.array([float(row["t_s"]) for row in rows])
        power_w = np.array([float(row["power_w"]) for row in rows])
        voltage_v, current_a = (
            np.array([float(row.get(name) or "nan") for row in rows]) for name in ("voltage_v", "current_a")
        )
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
    return Trace(info, t_ns, power_w, None, voltage_v, current_a, np.zeros(len(rows), dtype=np.int64))

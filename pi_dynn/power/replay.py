"""The meter `replay`: a saved trace played back in its own time.

For the figures of a saved run integrate `recorded`, which gives the same numbers again. In a *new* run the samples
are those of another run, so the label is SIMULATED.
"""

from dataclasses import replace
from pathlib import Path

from pi_dynn.clock import Clock
from pi_dynn.errors import MeterBusError, TraceInvalid
from pi_dynn.power.meter import SIMULATED, EnergyMeter, EnergyReading, PowerSample, SampleFlags
from pi_dynn.power.trace import Trace, load_trace


class Replay(EnergyMeter):
    """A meter that returns the samples of `recorded` at their original intervals."""

    def __init__(self, clock: Clock, recorded: Trace, name: str) -> None:
        self.recorded = recorded
        self._clock = clock
        self._name = name
        self._next = 0
        self._shift_ns = clock.now_ns() - int(recorded.t_ns[0])
        note = f"recorded with {recorded.info.name} ({recorded.info.label})"
        self.info = replace(
            recorded.info, name=name, measured=False, label=SIMULATED, notes=(*recorded.info.notes, note)
        )

    def due_ns(self) -> int:
        last = min(self._next, len(self.recorded.t_ns) - 1)
        return int(self.recorded.t_ns[last]) + self._shift_ns

    def read(self) -> PowerSample | EnergyReading | None:
        """The next sample once it is due; None before.

        Raises: MeterBusError after the last one.
        """
        if self._next == len(self.recorded.t_ns):
            raise MeterBusError(f"{self._name} is over after {self._next} samples: record longer, or measure less")
        if self._clock.now_ns() < self.due_ns():
            return None
        index, t_ns = self._next, self.due_ns()
        self._next += 1
        flags = SampleFlags(int(self.recorded.flags[index]))
        value = float(self.recorded.values[index])
        if self.recorded.info.kind == "counter":
            return EnergyReading(t_ns, value, flags)
        voltage_v, current_a = float(self.recorded.voltage_v[index]), float(self.recorded.current_a[index])
        known = [None if number != number else number for number in (voltage_v, current_a)]
        return PowerSample(t_ns, value, known[0], known[1], flags)


def open_replay(*, clock: Clock, root: Path = Path("/"), path: str | Path) -> Replay:
    """A meter that plays back the trace in the file `path` (JSON or CSV, see `load_trace`).

    Raises: MeterNotFound if there is no such file, TraceInvalid if it does not hold two samples or more.
    """
    recorded = load_trace(path)
    if len(recorded.t_ns) < 2:
        raise TraceInvalid(f"{str(path)!r} holds {len(recorded.t_ns)} samples: a replay needs 2 or more")
    return Replay(clock, recorded, f"replay:{path}")

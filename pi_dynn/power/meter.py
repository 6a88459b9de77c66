"""The protocol of power meters, the description of a meter, and its samples.

A meter is read by polling: `read()` never waits for a conversion. It returns a sample, or None when
nothing new has been converted since the last call, so that a stale register is never counted twice.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import IntFlag
from types import TracebackType
from typing import Literal, Protocol, TypeVar, runtime_checkable

from pi_dynn.errors import InputError
from pi_dynn.records import Record

AnyMeter = TypeVar("AnyMeter", bound="EnergyMeter")

MEASURED = "MEASURED"
ESTIMATED = "ESTIMATED"
SIMULATED = "SIMULATED"
NOMINAL_V = 5.0  # at which steps and offsets of power are given


class SampleFlags(IntFlag):
    """Problems of one sample; 0 for a good one."""

    NONE = 0
    CLIPPED = 1
    """The current was at the end of the range: the true value is at least this large."""
    OVERFLOW = 2
    """The chip's own multiplication overflowed; its current and power registers are void, but not the sample."""
    CHIP_RESET = 4
    """The chip had lost its configuration and was set up again: the power just before is unknown."""
    REVERSED = 8
    """The current flowed backwards: VIN+ and VIN- are swapped, or the board has a second supply."""


UNUSABLE = SampleFlags.CLIPPED | SampleFlags.CHIP_RESET | SampleFlags.REVERSED
"""Samples with any of these flags are kept in the trace and left out of every integral."""


@dataclass(frozen=True)
class PowerSample:
    """One reading of power, stamped at the middle of the time over which it was converted.

    Units: `t_ns` nanoseconds of the meter's clock, `power_w` watts, `voltage_v` volts, `current_a`
    amperes; voltage and current are None where the meter does not give them.
    """

    t_ns: int
    power_w: float
    voltage_v: float | None = None
    current_a: float | None = None
    flags: SampleFlags = SampleFlags.NONE


@dataclass(frozen=True)
class EnergyReading:
    """One reading of an energy counter: joules since some start, never falling."""

    t_ns: int
    energy_j: float
    flags: SampleFlags = SampleFlags.NONE


@dataclass(frozen=True)
class MeterAccuracy(Record):
    """The largest errors of a meter, by its data sheet or its certificate, which `source` names.

    `shunt`, `gain` and `voltage` are shares of the reading, `offset_w` watts at the nominal voltage.
    """

    source: str
    shunt: float
    gain: float
    voltage: float
    offset_w: float


@dataclass(frozen=True)
class MeterInfo(Record):
    """The description of a meter. Figures of different scope, rails or shunt must not be compared.

    `scope` names the part that is measured ("board input", "CPU package"). `resolution_w` is the smallest step of power
    at the nominal voltage (of a counter, its step in a period), `nominal_period_s` the time between samples without
    delays, `window_s` the part of it over which each sample averages (0: a point sample). `label` is MEASURED,
    ESTIMATED or SIMULATED and must be printed beside every figure. `range_a` is the current at the end of the range; it
    and `accuracy` are None where they are not known. `random_times` says that samples are taken at random times, which
    cannot keep step with the work.
    """

    name: str
    scope: str
    rails: tuple[str, ...]
    resolution_w: float
    nominal_period_s: float
    measured: bool
    label: str
    kind: Literal["power", "counter"] = "power"
    window_s: float = 0.0
    shunt_ohm: float | None = None
    gain: float = 1.0
    notes: tuple[str, ...] = ()
    range_a: float | None = None
    accuracy: MeterAccuracy | None = None
    random_times: bool = False

    def __post_init__(self) -> None:
        if self.label not in (MEASURED, ESTIMATED, SIMULATED) or self.measured != (self.label == MEASURED):
            raise InputError(
                f"a meter is MEASURED, ESTIMATED or SIMULATED, and only MEASURED is measured: got {self.label!r} "
                f"with measured={self.measured!r}"
            )


@runtime_checkable
class EnergyMeter(Protocol):
    """A power meter. Backends subclass it; `open_meter` opens one by name.

    Use it as a context manager: closing restores the chip's original configuration.
    """

    info: MeterInfo
    retries: int = 0
    """Bus transfers that had to be repeated so far."""

    def read(self) -> PowerSample | EnergyReading | None:
        """The newest sample, or None if nothing was converted since the last call.

        Raises: PowerError (one of its subclasses) if the meter cannot be read any more.
        """
        ...

    def due_ns(self) -> int | None:
        """When, on the meter's clock, the next sample is expected; None if it can be read at any time."""
        return None

    def fast_conversions(self) -> AbstractContextManager[object]:
        """Convert as fast as the meter can in the body, to see the peaks of the current; not accurate."""
        return nullcontext()  # the default, for meters with one speed

    def widen_range(self) -> bool:
        """Change to the widest range of current and say so; False if it is in use already."""
        return False

    def close(self) -> None:
        """Release the meter. May be called twice."""
        return  # the default, for meters that hold no resource

    def __enter__(self: AnyMeter) -> AnyMeter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

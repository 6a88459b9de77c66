"""RAPL: the energy counters of x86 processors, through the kernel's powercap files.

Only package domains are added up. Core, uncore and dram are parts of a package and psys contains it: adding any of
those would count the same energy twice. Units: microjoules (kernel, power/powercap).
"""

from dataclasses import dataclass
from pathlib import Path

from pi_dynn.clock import Clock
from pi_dynn.errors import MeterNotFound, PowerError
from pi_dynn.power.integrate import counter_difference_j
from pi_dynn.power.meter import MEASURED, EnergyMeter, EnergyReading, MeterInfo
from pi_dynn.power.sysfs import read_int, read_text

_PERIOD_S = 0.02  # the counters move every millisecond or so; 20 of those keep their jitter under 5 %
_STEP_J = 1e-6


@dataclass
class Domain:
    """One counter, unwrapped: `total_j` since it was opened."""

    label: str
    energy: Path
    range_j: float
    last_j: float
    total_j: float = 0.0

    def read(self) -> float:
        now_j = read_int(self.energy) * 1e-6
        self.total_j += counter_difference_j(self.last_j, now_j, self.range_j)
        self.last_j = now_j
        return self.total_j


class Rapl(EnergyMeter):
    """A meter that unwraps the package counter of each socket and adds them up."""

    def __init__(self, clock: Clock, domains: list[Domain], notes: tuple[str, ...]) -> None:
        self._clock = clock
        self._domains = domains
        self.info = MeterInfo(
            name="rapl",
            scope="CPU package",
            rails=tuple(domain.label for domain in domains),
            resolution_w=_STEP_J / _PERIOD_S,
            nominal_period_s=_PERIOD_S,
            measured=True,
            label=MEASURED,
            kind="counter",
            window_s=_PERIOD_S,
            notes=notes,
        )

    def read(self) -> EnergyReading:
        start_ns = self._clock.now_ns()
        energy_j = sum(domain.read() for domain in self._domains)
        return EnergyReading((start_ns + self._clock.now_ns()) // 2, energy_j)


def open_rapl(*, clock: Clock, root: Path = Path("/")) -> Rapl:
    """Open every `package-N` domain under `/sys/class/powercap`.

    A domain whose range cannot be read is left out with a note: its wrap could not be corrected.

    Raises: MeterNotFound if there is no package domain (not x86, or a virtual machine), MeterDenied if
    only root may read it.
    """
    domains, refused, notes = [], None, []
    # intel-rapl-mmio shows the same package a second time; AMD processors use the name intel-rapl too.
    for zone in sorted(root.glob("sys/class/powercap/intel-rapl:*")):
        label = read_text(zone / "name") if (zone / "name").exists() else ""
        if not label.startswith("package"):
            continue
        try:
            range_j = read_int(zone / "max_energy_range_uj") * 1e-6
            domains.append(Domain(label, zone / "energy_uj", range_j, read_int(zone / "energy_uj") * 1e-6))
        except PowerError as error:
            refused = refused or error
            notes.append(f"{label} left out: {error}")
    if not domains and refused is not None:
        raise refused
    if not domains:
        raise MeterNotFound(
            f"no RAPL package domain under {root / 'sys/class/powercap'}: not an x86 machine, or a virtual one"
        )
    return Rapl(clock, domains, tuple(notes))

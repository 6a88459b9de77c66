"""The simulated meter: the real INA219 driver on a register-accurate simulated chip with a known load.

It passes the same contract tests as a real one, is labelled SIMULATED wherever it is shown, and is opened only by
name.
"""

from pathlib import Path

from pi_dynn.clock import Clock
from pi_dynn.errors import InputError
from pi_dynn.power.fake.bus import TRANSFER_400_KHZ_S, FakeBus
from pi_dynn.power.fake.chip import Ina219Chip
from pi_dynn.power.fake.clock import SimulatedClock
from pi_dynn.power.fake.ina226_chip import Ina226Chip
from pi_dynn.power.fake.ina228_chip import Ina228Chip
from pi_dynn.power.fake.waveform import (
    Constant,
    During,
    Ramp,
    Square,
    Sum,
    Switched,
    Waveform,
    waveform_energy_j,
)
from pi_dynn.power.ina.ina219 import Ina219
from pi_dynn.power.ina.ina219_settings import Ina219Settings
from pi_dynn.power.meter import SIMULATED

__all__ = [
    "TRANSFER_400_KHZ_S",
    "Constant",
    "During",
    "FakeBus",
    "FakeMeter",
    "Ina219Chip",
    "Ina226Chip",
    "Ina228Chip",
    "Ramp",
    "SimulatedClock",
    "Square",
    "Sum",
    "Switched",
    "Waveform",
    "open_fake",
    "waveform_energy_j",
]

IDLE_POWER_W = 2.18
"""The power of the default load until it is set: the published idle power of a Pi 4."""


class FakeMeter(Ina219):
    """The INA219 driver with its simulated `bus` and `chip`, in which a test can cause faults.

    The default load is a `Switched` one, whose power a test or a demonstration sets with `set_load_w`.
    """

    bus: FakeBus

    def __init__(self, clock: Clock, settings: Ina219Settings, bus: FakeBus) -> None:
        super().__init__(bus, clock, settings, name="fake", label=SIMULATED, scope="simulated board input")

    @property
    def chip(self) -> Ina219Chip:
        chip = self.bus.chip
        assert isinstance(chip, Ina219Chip)  # the only one that this driver opens
        return chip

    def set_load_w(self, power_w: float) -> None:
        """Set the power of a `Switched` load from now on. Raises: InputError for another load."""
        load = self.chip.load
        if not isinstance(load, Switched):
            raise InputError(f"a {type(load).__name__} load cannot be set: open the meter with a Switched one")
        load.set_power(self._clock.now_ns() * 1e-9, power_w)


def open_fake(
    *,
    clock: Clock,
    root: Path = Path("/"),
    load: Waveform | None = None,
    bus: FakeBus | None = None,
    shunt_ohm: float = 0.1,
    max_current_a: float | None = None,
    bus_range_v: int = 16,
    shunt_averages: int = 8,
    rephase_every: int = 32,
    gain: float = 1.0,
) -> FakeMeter:
    """Open the simulated meter on `clock`, with a load of 2.18 W unless given one.

    For errors and faults pass your own `bus`: its chip has a load, noise, offset, gain error and an oscillator,
    the bus has transfer times and faults. The other options are those of `Ina219Settings`.
    """
    settings = Ina219Settings(shunt_ohm, max_current_a, bus_range_v, shunt_averages, gain, rephase_every)
    if bus is None:
        load = load if load is not None else Switched(IDLE_POWER_W)
        bus = FakeBus(Ina219Chip(clock, load, shunt_ohm=shunt_ohm), clock)
    return FakeMeter(clock, settings, bus)

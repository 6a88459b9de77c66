"""The INA226 and INA260 current monitors: 16 bits, both averaging volts and amperes over the whole of a sample.

They share their registers but for the first: an INA226 gives the voltage over an external shunt, an INA260 the
current through its own of 2 milliohms.

Source: TI SBOS547 (INA226) and SBOS656 (INA260).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pi_dynn.clock import Clock
from pi_dynn.power.certificate import calibrated, data_sheet_accuracy
from pi_dynn.power.ina.pairs import PairChip, PairSettings, open_pair_chip
from pi_dynn.power.ina.registers import BUS, CONFIG, INA226, INA260, SHUNT, signed
from pi_dynn.power.meter import NOMINAL_V, MeterAccuracy

_MASK, _ALERT_LIMIT = 6, 7  # reading the mask and enable register clears "conversion ready"
_MARK = 0x5A5A  # in a register that nothing uses here, and that a reset clears
_CONTINUOUS = 0x7
_CLIPPED = 0x7FFF


@dataclass(frozen=True)
class Ina226Settings(PairSettings):
    """How an INA226 is wired and configured; see `PairSettings`. 4 averages give 202 Hz.

    The range is fixed: 0.8 A on a shunt of 0.1 ohm, so that a Raspberry Pi 4 needs one of 0.02 ohm or less.

    Raises: InputError if a value is outside what the chip can do.
    """

    TIMES_S = (140e-6, 204e-6, 332e-6, 588e-6, 1.1e-3, 2.116e-3, 4.156e-3, 8.244e-3)
    CURRENT_CODE, BUS_CODE = 4, 0  # 1.1 ms and 140 us: the current is measured 89 % of the time
    FIXED_BITS: ClassVar[int] = 0x4000
    STEP_V: ClassVar[float] = 2.5e-6

    @property
    def config(self) -> int:
        """The configuration word: continuous current and bus voltage."""
        return self.FIXED_BITS | self.average_code << 9 | self.BUS_CODE << 6 | self.current_code << 3 | _CONTINUOUS

    @property
    def step_a(self) -> float:
        """The current of one step of register 1."""
        return self.STEP_V / self.shunt_ohm

    @property
    def range_a(self) -> float:
        """The current at the end of the range."""
        return _CLIPPED * self.step_a * self.gain

    @property
    def resolution_w(self) -> float:
        """The smallest step of power at 5 V."""
        return self.step_a * NOMINAL_V

    @property
    def accuracy(self) -> MeterAccuracy:
        """The largest errors by the data sheet, at 25 C, and of the shunt."""
        offset_w = 10e-6 / self.shunt_ohm * NOMINAL_V
        return data_sheet_accuracy("INA226 data sheet", 0.001, 0.001, offset_w, self.certified, ", R100 shunt")


@dataclass(frozen=True)
class Ina260Settings(Ina226Settings):
    """How an INA260 is configured; its shunt of 2 milliohms and its gain are trimmed in the factory."""

    shunt_ohm: float = 0.002

    FIXED_BITS: ClassVar[int] = 0x6000

    @property
    def step_a(self) -> float:
        """The current of one step of register 1, which is in amperes already."""
        return 1.25e-3

    @property
    def range_a(self) -> float:
        """The largest continuous current of the package, which is less than the register holds."""
        return 15.0

    @property
    def accuracy(self) -> MeterAccuracy:
        """The largest errors by the data sheet, shunt included."""
        gain = 0.0015 if self.certified is None else self.certified
        return MeterAccuracy("INA260 data sheet", 0.0, gain, 0.001, 5e-3 * NOMINAL_V)


class Ina226(PairChip[Ina226Settings]):
    """An INA226; see `InaChip`."""

    chip_name = "INA226"
    ready_register = _MASK
    ready_bit = 0x0008
    power_on_config = 0x4127
    named = INA226
    clipped = _CLIPPED
    bus_lsb_v = 1.25e-3

    def _settings_words(self) -> dict[int, int]:
        return {_ALERT_LIMIT: _MARK, CONFIG: self.settings.config}

    def _steps(self) -> tuple[int, int]:
        return signed(self._read(SHUNT)), self._read(BUS)


class Ina260(Ina226):
    """An INA260; see `InaChip`."""

    chip_name = "INA260"
    power_on_config = 0x6127
    named = INA260


def open_ina226(
    *,
    clock: Clock,
    root: Path = Path("/"),
    bus: int = 1,
    address: int | None = None,
    shunt_ohm: float | None = None,
    averages: int = 4,
    rephase_every: int = 32,
    certificate: str | Path | None = None,
) -> Ina226:
    """Open the INA226 at `address` of `/dev/i2c-<bus>`, without one the only INA226 there; see `Ina226Settings`.

    Raises: MeterAmbiguous if several answer.
    """
    corrections = calibrated(certificate, shunt_ohm, 0.1)
    settings = Ina226Settings(averages=averages, rephase_every=rephase_every, **corrections)  # type: ignore[arg-type]
    return open_pair_chip(Ina226, clock, root, bus, address, settings)


def open_ina260(
    *,
    clock: Clock,
    root: Path = Path("/"),
    bus: int = 1,
    address: int | None = None,
    averages: int = 4,
    rephase_every: int = 32,
) -> Ina260:
    """Open the INA260 at `address` of `/dev/i2c-<bus>`, without one the only INA260 there.

    Raises: MeterAmbiguous if several answer.
    """
    return open_pair_chip(
        Ina260, clock, root, bus, address, Ina260Settings(averages=averages, rephase_every=rephase_every)
    )

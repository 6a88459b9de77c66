"""The INA219 current monitor, read register by register over an injected bus.

The chip's own current and power registers are coarser than volts times amperes and void after an overflow. The power
register is still read, for two reasons: it clears "conversion ready", and it reads 0 once the chip has lost its
calibration, which indicates a brown-out.

Source: TI SBOS448G. Sections and tables are named where a number comes from them.
"""

from pathlib import Path

from pi_dynn.clock import Clock
from pi_dynn.power.certificate import calibrated
from pi_dynn.power.ina.chip import Conversion, InaChip
from pi_dynn.power.ina.ina219_settings import BUS_LSB_V, POWER_ON_CONFIG, SHUNT_LSB_V, Ina219Settings
from pi_dynn.power.ina.registers import (
    BUS,
    CALIBRATION,
    CONFIG,
    MATH_OVERFLOW,
    POWER,
    SHUNT,
    RegisterBus,
    other_chip,
    signed,
)
from pi_dynn.power.meter import MEASURED, SampleFlags

_REVERSED_V = -0.5e-3  # beyond the offset of the worst chip, +-200 uV


class Ina219(InaChip[Ina219Settings]):
    """An INA219; see `InaChip`."""

    chip_name = "INA219"
    ready_register = BUS
    ready_bit = 0x0002
    power_on_config = POWER_ON_CONFIG

    def __init__(
        self,
        bus: RegisterBus,
        clock: Clock,
        settings: Ina219Settings | None = None,
        *,
        name: str = "ina219",
        label: str = MEASURED,
        scope: str = "board input",
    ) -> None:
        super().__init__(bus, clock, settings or Ina219Settings(), name=name, label=label, scope=scope)

    def _settings_words(self) -> dict[int, int]:
        return {CALIBRATION: self.settings.calibration, CONFIG: self.settings.config}

    def _stranger(self) -> str | None:
        return other_chip(self.bus, self._clock)

    def _take(self, ready_word: int) -> Conversion:
        shunt, bus = signed(self._read(SHUNT)), ready_word >> 3
        power = self._read(POWER)  # clears conversion ready; its value only shows whether the chip was reset
        flags = SampleFlags.NONE
        if abs(shunt) >= self.settings.shunt_limit or bus >= self.settings.bus_limit:
            flags |= SampleFlags.CLIPPED  # not shown by the overflow bit, which is about the multiplication
        if ready_word & MATH_OVERFLOW:
            flags |= SampleFlags.OVERFLOW
        if shunt * SHUNT_LSB_V < _REVERSED_V:
            flags |= SampleFlags.REVERSED
        expected_power = abs(shunt) * self.settings.calibration // 4096 * bus // 5000
        return Conversion(
            current_a=shunt * SHUNT_LSB_V / self.settings.shunt_ohm,
            voltage_v=bus * BUS_LSB_V,
            flags=flags,
            suspect=power == 0 and expected_power >= 2 and not flags & SampleFlags.OVERFLOW,
            cleared_ns=self._clock.now_ns(),
        )


def open_ina219(
    *,
    clock: Clock,
    root: Path = Path("/"),
    bus: int = 1,
    address: int | None = None,
    shunt_ohm: float | None = None,
    max_current_a: float | None = None,
    bus_range_v: int = 16,
    shunt_averages: int = 8,
    rephase_every: int = 32,
    certificate: str | Path | None = None,
) -> Ina219:
    """Open the INA219 at `address` of `/dev/i2c-<bus>` through smbus2; see `Ina219Settings`.

    Without an `address` it is the only INA219 that answers. `certificate` is a file of
    `calibration/` with the shunt's resistance and what corrects its currents.

    Raises: MeterAmbiguous if several chips answer.
    """
    from pi_dynn.power.ina.i2c_scan import only_meter_address
    from pi_dynn.power.ina.smbus import open_smbus

    settings = settings_for(
        shunt_ohm=shunt_ohm,
        certificate=certificate,
        max_current_a=max_current_a,
        bus_range_v=bus_range_v,
        shunt_averages=shunt_averages,
        rephase_every=rephase_every,
    )
    if address is None:
        address = only_meter_address(bus, root, lambda registers: other_chip(registers, clock) is not None)
    return Ina219(open_smbus(bus, address, root), clock, settings)


def settings_for(
    *,
    shunt_ohm: float | None,
    certificate: str | Path | None,
    max_current_a: float | None = None,
    bus_range_v: int = 16,
    shunt_averages: int = 8,
    rephase_every: int = 32,
) -> Ina219Settings:
    """Settings from options, the shunt and its gain from a certificate if there is one.

    Raises: InputError if the two disagree about the shunt, or a setting is out of range.
    """
    return Ina219Settings(
        max_current_a=max_current_a,
        bus_range_v=bus_range_v,
        shunt_averages=shunt_averages,
        rephase_every=rephase_every,
        **calibrated(certificate, shunt_ohm, 0.1),  # type: ignore[arg-type]
    )

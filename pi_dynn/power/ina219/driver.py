"""The INA219 current monitor, read register by register over an injected bus.

Shunt and bus voltage are read and multiplied here in floats; the chip's own current and power registers are
coarser and void after an overflow. The power register is still read, for two reasons: it clears
"conversion ready", and it reads 0 once the chip has lost its calibration, which indicates a brown-out.

Source: TI SBOS448G. Sections and tables are named where a number comes from them.
"""

import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from pi_dynn.clock import Clock
from pi_dynn.errors import MeterBusError, MeterNotFound, PowerError
from pi_dynn.power.certificate import load_certificate
from pi_dynn.power.ina219.conversion_phase import ConversionPhase
from pi_dynn.power.ina219.registers import (
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
from pi_dynn.power.ina219.settings import (
    BUS_LSB_V,
    POWER_ON_CONFIG,
    SHUNT_LSB_V,
    Ina219Settings,
)
from pi_dynn.power.meter import MEASURED, EnergyMeter, MeterInfo, PowerSample, SampleFlags

P = ParamSpec("P")
T = TypeVar("T")
_MODE_BITS = 0x0007
_CONVERSION_READY = 0x0002

_TRANSIENT = (errno.EREMOTEIO, errno.EIO, errno.ETIMEDOUT)
_RETRIES = 3
_RETRY_PAUSE_S = 1e-3
_POLLS_TO_WAIT = 64  # for the first sample: several cycles
_READS_PER_CHECK = 256  # without a load 0 W is normal, so the configuration is read now and then to detect a reset
_REVERSED_V = -0.5e-3  # beyond the offset of the worst chip, +-200 uV
_WAKE_UP_NS = 40_000  # from power-down, section 8.5.1


class Ina219(EnergyMeter):
    """An INA219 in continuous conversion, sampled by polling its conversion-ready flag.

    Every `settings.rephase_every` samples the chip is put to sleep for a random part of a cycle. During the bus
    conversion, about 10 % of every cycle, the current is not measured; for inferences that last a whole number of
    cycles this would always be the same part of them.

    Raises: MeterNotFound if no INA219 answers, MeterBusError if the bus fails, PowerError if the
    current flows backwards.
    """

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
        self.bus = bus
        self.settings = settings or Ina219Settings()
        self.retries = 0
        self._clock = clock
        self._pid = os.getpid()
        self._closed = False
        self._original: tuple[int, int] | None = None
        self._random = random.Random(0)  # fixed, so that runs are reproducible
        self._phase = ConversionPhase(round(self.settings.cycle_s * 1e9))
        self.info = self._described(name, label, scope)
        try:
            self._identify()
            self._set_up()
            self._refuse_reversed_leads()
        except BaseException:
            self.close()
            raise

    def _described(self, name: str, label: str, scope: str) -> MeterInfo:
        return MeterInfo(
            name=name,
            scope=scope,
            rails=("VIN-",),  # the load side: the loss in the shunt is not included
            resolution_w=self.settings.resolution_w,
            nominal_period_s=self.settings.cycle_s,
            measured=label == MEASURED,
            label=label,
            window_s=self.settings.shunt_s,
            shunt_ohm=self.settings.shunt_ohm,
            gain=self.settings.gain,
            range_a=self.settings.range_a,
            accuracy=self.settings.accuracy,
        )

    # Sampling

    def read(self) -> PowerSample | None:
        """The newest conversion, or None while there is no new one."""
        if self._asleep:
            self._wake()
            return None
        before_ns = self._clock.now_ns()
        bus_word = self._read(BUS)
        polled_ns = (before_ns + self._clock.now_ns()) // 2
        if not bus_word & _CONVERSION_READY:
            self._phase.not_ready(polled_ns)
            return None
        shunt = signed(self._read(SHUNT))
        power = self._read(POWER)  # clears conversion ready; its value only shows whether the chip was reset
        done_ns = self._phase.ready(polled_ns, self._clock.now_ns())
        self._fresh += 1
        flags = self._judge(shunt, bus_word, power)
        if flags & SampleFlags.CHIP_RESET:
            self._set_up()
        elif self._discard:
            self._discard -= 1
            return None
        elif self.settings.rephase_every and self._fresh % self.settings.rephase_every == 0:
            self._fall_asleep()
        return self._sample(done_ns, shunt, bus_word, flags)

    @contextmanager
    def fast_conversions(self) -> Iterator[None]:
        settings = self.settings
        self._change(replace(settings, fast=True))
        try:
            yield
        finally:
            self._change(settings)

    def widen_range(self) -> bool:
        wide = replace(self.settings, max_current_a=None)
        if wide.range_a <= self.settings.range_a:
            return False
        self._change(wide)
        self.info = self._described(self.info.name, self.info.label, self.info.scope)
        return True

    def _change(self, settings: Ina219Settings) -> None:
        self.settings = settings
        self._phase = ConversionPhase(round(settings.cycle_s * 1e9))
        self._set_up()

    def due_ns(self) -> int:
        return self._wake_ns if self._asleep else self._phase.due_ns

    def _sample(self, done_ns: int, shunt: int, bus_word: int, flags: SampleFlags) -> PowerSample:
        settings = self.settings
        voltage_v = (bus_word >> 3) * BUS_LSB_V * settings.voltage_gain
        current_a = shunt * SHUNT_LSB_V / settings.shunt_ohm * settings.gain + settings.offset_a
        # A cycle converts the shunt, then the bus, then says it is ready: the current is that of the shunt's window.
        age_s = settings.bus_s + 0.5 * settings.shunt_s
        return PowerSample(done_ns - round(age_s * 1e9), voltage_v * current_a, voltage_v, current_a, flags)

    def _judge(self, shunt: int, bus_word: int, power: int) -> SampleFlags:
        bus = bus_word >> 3
        flags = SampleFlags.NONE
        if abs(shunt) >= self.settings.shunt_limit or bus >= self.settings.bus_limit:
            flags |= SampleFlags.CLIPPED  # not shown by the overflow bit, which is about the multiplication
        if bus_word & MATH_OVERFLOW:
            flags |= SampleFlags.OVERFLOW
        if shunt * SHUNT_LSB_V < _REVERSED_V:
            flags |= SampleFlags.REVERSED
        expected_power = abs(shunt) * self.settings.calibration // 4096 * bus // 5000
        suspect = power == 0 and expected_power >= 2 and not flags & SampleFlags.OVERFLOW
        if (suspect or self._fresh % _READS_PER_CHECK == 0) and not self._configured():
            flags |= SampleFlags.CHIP_RESET
        return flags

    # The chip

    def _identify(self) -> None:
        try:
            config = self._read(CONFIG)
            self._original = (config, self._read(CALIBRATION))
        except MeterBusError as error:
            code = getattr(error.__cause__, "errno", None)
            if code in (*_TRANSIENT, errno.ENXIO):
                raise MeterNotFound(
                    f"nothing answers on {self.bus.name}: check VCC, GND, SDA and SCL, then i2cdetect for the address"
                ) from error
            raise
        found = other_chip(self.bus, self._clock)
        if found is not None:
            self._original = None  # another chip: close() must not write to it
            raise MeterNotFound(f"the chip on {self.bus.name} is no INA219 ({found}): name another --i2c-address")

    def _set_up(self) -> None:
        """Configure and calibrate; the conversion in progress is of the old mode and will be discarded."""
        self._write(CALIBRATION, self.settings.calibration)
        self._write(CONFIG, self.settings.config)
        if not self._configured():
            raise MeterNotFound(
                f"the chip on {self.bus.name} does not keep the configuration {self.settings.config:#06x}: "
                "it is no INA219, or its supply is failing"
            )
        self._asleep = False
        self._discard = 1
        self._fresh = 0
        self._phase.restart(self._clock.now_ns())

    def _configured(self) -> bool:
        return self._read(CONFIG) == self.settings.config and self._read(CALIBRATION) == self.settings.calibration

    def _fall_asleep(self) -> None:
        self._write(CONFIG, self.settings.config & ~_MODE_BITS)
        self._asleep = True
        self._wake_ns = self._clock.now_ns() + self._random.randrange(self._phase.cycle_ns)

    def _wake(self) -> None:
        if self._clock.now_ns() >= self._wake_ns:
            self._write(CONFIG, self.settings.config)
            self._asleep = False
            self._phase.restart(self._clock.now_ns() + _WAKE_UP_NS)

    def _refuse_reversed_leads(self) -> None:
        for _ in range(_POLLS_TO_WAIT):
            self._clock.sleep((self.due_ns() - self._clock.now_ns()) * 1e-9)
            sample = self.read()
            if sample is not None and sample.flags & SampleFlags.REVERSED:
                raise PowerError(
                    f"the current on {self.bus.name} flows backwards ({sample.current_a:.3f} A): swap VIN+ and VIN-"
                )
            if sample is not None:
                return
        raise MeterBusError(f"the INA219 on {self.bus.name} answers but does not convert: power-cycle it")

    def close(self) -> None:
        """Restore the chip's original configuration and release the bus."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._original is not None and os.getpid() == self._pid:  # a forked child must not touch the chip
                config, calibration = self._original
                self.bus.write_word(CALIBRATION, calibration)
                self.bus.write_word(CONFIG, config or POWER_ON_CONFIG)
        except OSError:
            pass  # unplugged: nothing to restore
        finally:
            self.bus.close()

    # Transfers

    def _read(self, register: int) -> int:
        return self._transfer(self.bus.read_word, register)

    def _write(self, register: int, value: int) -> None:
        self._transfer(self.bus.write_word, register, value)

    def _transfer(self, transfer: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        for attempt in range(_RETRIES + 1):
            try:
                return transfer(*arguments, **options)
            except OSError as error:
                if error.errno not in _TRANSIENT or attempt == _RETRIES:
                    raise self._bus_error(error) from error
                self.retries += 1
                self._clock.sleep(_RETRY_PAUSE_S)
        raise AssertionError("unreachable")

    def _bus_error(self, error: OSError) -> MeterBusError:
        if error.errno == errno.EBUSY:
            return MeterBusError(f"a kernel driver holds the chip on {self.bus.name}: use the meter 'hwmon' instead")
        what = error.strerror or str(error)
        tries = f" {_RETRIES + 1} times" if error.errno in _TRANSIENT else ""
        return MeterBusError(f"{self.bus.name} failed{tries} ({what}): check the leads, keep them short")


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
    from pi_dynn.power.ina219.i2c_scan import only_meter_address
    from pi_dynn.power.ina219.smbus import open_smbus

    def is_other(address: int) -> bool:
        registers = open_smbus(bus, address, root)
        try:
            return other_chip(registers, clock) is not None
        except OSError:
            return True
        finally:
            registers.close()

    settings = settings_for(
        shunt_ohm=shunt_ohm,
        certificate=certificate,
        max_current_a=max_current_a,
        bus_range_v=bus_range_v,
        shunt_averages=shunt_averages,
        rephase_every=rephase_every,
    )
    if address is None:
        address = only_meter_address(bus, root, is_other)
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
    calibrated: dict[str, float | None] = {"shunt_ohm": 0.1 if shunt_ohm is None else shunt_ohm}
    if certificate is not None:
        record = load_certificate(certificate)
        calibrated = {
            "shunt_ohm": record.checked_shunt(shunt_ohm),
            "gain": record.gain,
            "offset_a": record.offset_a,
            "voltage_gain": record.voltage_gain,
            "certified": record.uncertainty,
        }
    return Ina219Settings(
        max_current_a=max_current_a,
        bus_range_v=bus_range_v,
        shunt_averages=shunt_averages,
        rephase_every=rephase_every,
        **calibrated,  # type: ignore[arg-type]
    )

"""What the current monitors of the INA2xx family have in common: identified by reading, set up, polled, restored.

Every chip converts on its own and says when it is ready; it is polled then, and a conversion is never read twice. The
shunt and bus voltages are read and multiplied here in floats.
"""

import errno
import os
import random
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, NamedTuple, ParamSpec, Protocol, TypeVar

from pi_dynn.clock import Clock
from pi_dynn.errors import MeterBusError, MeterNotFound, PowerError
from pi_dynn.power.ina.conversion_phase import ConversionPhase
from pi_dynn.power.ina.registers import CONFIG, RegisterBus
from pi_dynn.power.meter import MEASURED, EnergyMeter, EnergyReading, MeterAccuracy, MeterInfo, PowerSample, SampleFlags

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="InaSettings")
_MODE_BITS = 0x0007
# No acknowledge is EREMOTEIO on a Pi and ENXIO on most USB adapters (Documentation/i2c/fault-codes.rst).
_TRANSIENT = (errno.EREMOTEIO, errno.ENXIO, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN)
_UNPLUGGED = (errno.ENODEV, errno.ESHUTDOWN, errno.EPIPE)
_RETRIES = 3
_RETRY_PAUSE_S = 1e-3
_POLLS_TO_WAIT = 64  # for the first sample: several cycles
_READS_PER_CHECK = 256  # without a load 0 W is normal, so the configuration is read now and then to detect a reset
_WAKE_UP_NS = 40_000  # from power-down, all of them within 40 us


class InaSettings(Protocol):
    """What the common part needs to know of the settings of a chip; times are in seconds.

    `current_s` is the time over which the current of a sample is averaged, `age_s` how long before the end of a
    conversion the middle of that time lies.
    """

    @property
    def shunt_ohm(self) -> float: ...

    @property
    def gain(self) -> float: ...

    @property
    def offset_a(self) -> float: ...

    @property
    def voltage_gain(self) -> float: ...

    @property
    def rephase_every(self) -> int: ...

    @property
    def config(self) -> int: ...

    @property
    def cycle_s(self) -> float: ...

    @property
    def current_s(self) -> float: ...

    @property
    def age_s(self) -> float: ...

    @property
    def range_a(self) -> float: ...

    @property
    def accuracy(self) -> MeterAccuracy: ...

    @property
    def resolution_w(self) -> float: ...

    def faster(self: S) -> S: ...

    def wider(self: S) -> S: ...


class Conversion(NamedTuple):
    """One conversion as read: before any calibration of the meter; `cleared_ns` is when ready was cleared."""

    current_a: float
    voltage_v: float
    flags: SampleFlags
    suspect: bool
    cleared_ns: int


class InaChip(EnergyMeter, Generic[S]):
    """A chip in continuous conversion, sampled by polling its conversion-ready flag.

    Every `settings.rephase_every` samples the chip is put to sleep for a random part of a cycle. During the bus
    conversion the current is not measured; for inferences that last a whole number of cycles this would always be the
    same part of them.

    Raises: MeterNotFound if no such chip answers, MeterBusError if the bus fails, PowerError if the current
    flows backwards.
    """

    chip_name: str
    """The name of the chip for people."""
    ready_register: int
    ready_bit: int
    power_on_config: int

    def __init__(
        self,
        bus: RegisterBus,
        clock: Clock,
        settings: S,
        *,
        name: str,
        label: str = MEASURED,
        scope: str = "board input",
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.retries = 0
        self._clock = clock
        self._pid = os.getpid()
        self._closed = False
        self._original: dict[int, int] = {}  # registers as they were found
        self._random = random.Random(0)  # fixed, so that runs are reproducible
        self._phase = ConversionPhase(round(settings.cycle_s * 1e9))
        self.info = self._described(name, label, scope)
        try:
            self._identify()
            self._set_up()
            self._refuse_reversed_leads()
        except BaseException:
            self.close()
            raise

    def _described(self, name: str, label: str, scope: str) -> MeterInfo:
        settings = self.settings
        return MeterInfo(
            name=name,
            scope=scope,
            rails=("VIN-",),  # the load side: the loss in the shunt is not included
            resolution_w=settings.resolution_w,
            nominal_period_s=settings.cycle_s,
            measured=label == MEASURED,
            label=label,
            window_s=settings.current_s,
            shunt_ohm=settings.shunt_ohm,
            gain=settings.gain,
            range_a=settings.range_a,
            accuracy=settings.accuracy,
        )

    # What the chips differ in

    @abstractmethod
    def _settings_words(self) -> dict[int, int]:
        """The registers that hold the settings, and their words; the configuration comes last."""

    @abstractmethod
    def _stranger(self) -> str | None:
        """What shows that this is another chip; None if nothing does. It only reads."""

    @abstractmethod
    def _take(self, ready_word: int) -> Conversion:
        """Read the conversion that `ready_word` announced."""

    # Sampling

    def read(self) -> PowerSample | EnergyReading | None:
        """The newest conversion, or None while there is no new one."""
        return self._next()

    def _next(self) -> PowerSample | None:
        if self._asleep:
            self._wake()
            return None
        before_ns = self._clock.now_ns()
        ready_word = self._read(self.ready_register)
        polled_ns = (before_ns + self._clock.now_ns()) // 2
        if not ready_word & self.ready_bit:
            self._phase.not_ready(polled_ns)
            return None
        taken = self._take(ready_word)
        done_ns = self._phase.ready(polled_ns, taken.cleared_ns)
        self._fresh += 1
        flags = taken.flags
        if (taken.suspect or self._fresh % _READS_PER_CHECK == 0) and not self._configured():
            flags |= SampleFlags.CHIP_RESET
            self._set_up()
        elif self._discard:
            self._discard -= 1
            return None
        elif self.settings.rephase_every and self._fresh % self.settings.rephase_every == 0:
            self._fall_asleep()
        settings = self.settings
        voltage_v = taken.voltage_v * settings.voltage_gain
        current_a = taken.current_a * settings.gain + settings.offset_a
        t_ns = done_ns - round(settings.age_s * 1e9)
        return PowerSample(t_ns, voltage_v * current_a, voltage_v, current_a, flags)

    @contextmanager
    def fast_conversions(self) -> Iterator[None]:
        settings = self.settings
        self._change(settings.faster())
        try:
            yield
        finally:
            self._change(settings)

    def widen_range(self) -> bool:
        wide = self.settings.wider()
        if wide.range_a <= self.settings.range_a:
            return False
        self._change(wide)
        self.info = self._described(self.info.name, self.info.label, self.info.scope)
        return True

    def _change(self, settings: S) -> None:
        self.settings = settings
        self._phase = ConversionPhase(round(settings.cycle_s * 1e9))
        self._set_up()

    def due_ns(self) -> int:
        return self._wake_ns if self._asleep else self._phase.due_ns

    # The chip

    def _identify(self) -> None:
        try:
            found = {register: self._read(register) for register in self._settings_words()}
        except MeterBusError as error:
            code = getattr(error.__cause__, "errno", None)
            if code in _TRANSIENT:
                raise MeterNotFound(
                    f"nothing answers on {self.bus.name}: check VCC, GND, SDA and SCL, then i2cdetect for the address"
                ) from error
            raise
        stranger = self._stranger()
        if stranger is not None:  # close() must not write to it, so nothing is kept to be restored
            raise MeterNotFound(
                f"the chip on {self.bus.name} is no {self.chip_name} ({stranger}): name another --i2c-address"
            )
        self._original = found

    def _set_up(self) -> None:
        """Write the settings; the conversion in progress is of the old mode and will be discarded."""
        for register, word in self._settings_words().items():
            self._write(register, word)
        if not self._configured():
            raise MeterNotFound(
                f"the chip on {self.bus.name} does not keep the configuration {self.settings.config:#06x}: "
                f"it is no {self.chip_name}, or its supply is failing"
            )
        self._asleep = False
        self._discard = 1
        self._fresh = 0
        self._phase.restart(self._clock.now_ns())

    def _configured(self) -> bool:
        return all(self._read(register) == word for register, word in self._settings_words().items())

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
            sample = self._next()
            if sample is not None and sample.flags & SampleFlags.REVERSED:
                raise PowerError(
                    f"the current on {self.bus.name} flows backwards ({sample.current_a:.3f} A): swap VIN+ and VIN-"
                )
            if sample is not None:
                return
        raise MeterBusError(f"the {self.chip_name} on {self.bus.name} answers but does not convert: power-cycle it")

    def close(self) -> None:
        """Restore the chip's original configuration and release the bus."""
        if self._closed:
            return
        self._closed = True
        try:
            if os.getpid() == self._pid:  # a forked child must not touch the chip
                for register, word in self._original.items():
                    self.bus.write_word(register, word or (self.power_on_config if register == CONFIG else word))
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
        if error.errno in _UNPLUGGED:
            return MeterBusError(f"{self.bus.name} is gone ({what}): plug the USB adapter in again")
        tries = f" {_RETRIES + 1} times" if error.errno in _TRANSIENT else ""
        return MeterBusError(f"{self.bus.name} failed{tries} ({what}): check the leads, keep them short")

"""The meter `hwmon`: power chips with a kernel driver, INA2xx on any board and INA3221 on Jetsons.

Units of the files: millivolts, milliamperes, microwatts, micro-ohms, milliseconds (kernel, Documentation/hwmon).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pi_dynn.clock import Clock
from pi_dynn.errors import InputError, MeterAmbiguous, MeterNotFound, PowerError
from pi_dynn.power.certificate import data_sheet_accuracy, load_certificate
from pi_dynn.power.meter import MEASURED, EnergyMeter, MeterAccuracy, MeterInfo, PowerSample, SampleFlags
from pi_dynn.power.sysfs import read_int, read_optional_int, read_text

_INA219_SCALE, _INA226_SCALE, INA3221_SCALE = 0.32, 0.08192, 0.1638
INA2XX_FULL_SCALE_V = {"ina219": _INA219_SCALE, "ina220": _INA219_SCALE} | dict.fromkeys(
    ("ina226", "ina230", "ina231"), _INA226_SCALE
)
_INA3221_STEP_V = 40e-6
_DRIVER_DEFAULT_UOHM = 10_000  # RSHUNT_DEFAULT of drivers/hwmon/ina2xx.c; breakout boards carry 100 000
_PERIOD_S = 0.01  # a default INA3221 converts its three channels in 6.6 ms, and a read may block for that
_UPDATE_MARGIN = 1.1  # the oscillators of the chips are good to 10 %
# Largest errors at 25 C by the data sheets: gain, voltage, offset over the shunt in volts.
_DATA_SHEETS = {
    _INA219_SCALE: ("INA219 data sheet", 0.005, 0.005, 200e-6),
    _INA226_SCALE: ("INA226 data sheet", 0.001, 0.001, 10e-6),
    INA3221_SCALE: ("INA3221 data sheet", 0.0025, 0.0025, 80e-6),
}

_TOTAL_RAILS = ("VDD_IN",)  # Orin Nano and NX: channel 1 is the whole module
_PART_RAILS = ("VDD_GPU_SOC", "VDD_CPU_CV")  # AGX Orin: parallel supplies, and there is no total
_NOT_RAILS = ("nc", "sum of shunt voltages")


@dataclass(frozen=True)
class Rail:
    """One channel of a chip: its files, and the factor that corrects a wrong shunt value in the driver.

    `update_s` is the time from one conversion to the next, 0 if the driver does not say.
    """

    label: str
    voltage: Path
    current: Path
    power: Path | None
    shunt_ohm: float | None
    full_scale_v: float
    scale: float = 1.0
    gain: float = 1.0
    offset_a: float = 0.0
    voltage_gain: float = 1.0
    certified: float | None = None
    update_s: float = 0.0

    def read(self) -> tuple[float, float, float, bool]:
        """Watts, volts, amperes, and whether the current is clipped at the end of the range."""
        voltage_v = self.volts()
        reported_a = read_int(self.current) * 1e-3
        factor = self.scale * self.gain
        current_a = reported_a * factor + self.offset_a
        power_w = voltage_v * current_a if self.power is None else read_int(self.power) * 1e-6 * factor
        kernel_ohm = None if self.shunt_ohm is None else self.shunt_ohm * self.scale
        clipped = kernel_ohm is not None and abs(reported_a) * kernel_ohm >= 0.999 * self.full_scale_v
        return power_w, voltage_v, current_a, clipped

    def volts(self) -> float:
        """The voltage of the rail now."""
        return read_int(self.voltage) * 1e-3 * self.voltage_gain

    def accuracy(self, voltage_v: float) -> MeterAccuracy | None:
        """The largest errors of the rail at this voltage; None without its shunt."""
        if self.shunt_ohm is None:
            return None
        source, gain, voltage, offset_v = _DATA_SHEETS[self.full_scale_v]
        offset_w = offset_v / self.shunt_ohm * voltage_v
        return data_sheet_accuracy(source, gain, voltage, offset_w, self.certified)


class Hwmon(EnergyMeter):
    """A meter that reads one or more rails from the kernel and adds up their power.

    Volts and amperes come from different conversions of the chip; the sample is stamped at the middle
    of the reads. Reads come at random times, so that they cannot keep step with the work, and never sooner than the
    chip converts again, so that no conversion is read twice.
    """

    def __init__(
        self,
        clock: Clock,
        rails: list[Rail],
        scope: str,
        resolution_w: float,
        notes: tuple[str, ...],
        name: str = "hwmon",
    ) -> None:
        self._clock = clock
        self._rails = rails
        self._random = random.Random(0)  # fixed, so that runs are reproducible
        update_s = max(rail.update_s for rail in rails)
        self._least_s = max(_PERIOD_S, _UPDATE_MARGIN * update_s)
        self._due_ns = clock.now_ns()
        only = rails[0] if len(rails) == 1 else None
        shunts = {rail.shunt_ohm for rail in rails}
        self.info = MeterInfo(
            name=name,
            scope=scope,
            rails=tuple(rail.label for rail in rails),
            resolution_w=resolution_w,
            nominal_period_s=1.5 * self._least_s,
            measured=True,
            label=MEASURED,
            window_s=update_s / 2,  # shunt and bus are converted one after the other
            shunt_ohm=shunts.pop() if len(shunts) == 1 else None,
            gain=only.gain if only is not None else 1.0,
            notes=notes,
            range_a=only.full_scale_v / only.shunt_ohm if only is not None and only.shunt_ohm else None,
            accuracy=only.accuracy(only.volts()) if only is not None else None,
            random_times=True,
        )
        for rail in rails:
            if rail.read()[2] < 0:
                raise PowerError(f"the current of rail {rail.label} flows backwards: swap the leads of its shunt")

    def due_ns(self) -> int:
        return self._due_ns

    def read(self) -> PowerSample | None:
        """A new sample, or None before the chip has converted again."""
        start_ns = self._clock.now_ns()
        if start_ns < self._due_ns:
            return None
        readings = [rail.read() for rail in self._rails]
        end_ns = self._clock.now_ns()
        self._due_ns = end_ns + round(self._least_s * self._random.uniform(1.0, 2.0) * 1e9)
        flags = SampleFlags.CLIPPED if any(clipped for *_, clipped in readings) else SampleFlags.NONE
        if any(current_a < 0 for _, _, current_a, _ in readings):
            flags |= SampleFlags.REVERSED
        middle_ns = (start_ns + end_ns) // 2
        power_w = sum(power_w for power_w, *_ in readings)
        if len(readings) > 1:  # several rails have no voltage in common
            return PowerSample(middle_ns, power_w, flags=flags)
        _, voltage_v, current_a, _ = readings[0]
        return PowerSample(middle_ns, power_w, voltage_v, current_a, flags)


@dataclass(frozen=True)
class _Chip:
    """A power chip with a driver: its folder, the name of its driver, and its place such as `1-0040`."""

    folder: Path
    name: str
    place: str

    @classmethod
    def at(cls, folder: Path) -> "_Chip":
        return cls(folder, read_text(folder / "name"), (folder / "device").resolve().name)

    @property
    def label(self) -> str:
        """The label from the device tree, or else the name of the driver."""
        label = self.folder / "label"
        return read_text(label) if label.exists() else self.name

    def sits_at(self, bus: int | None, address: int | None) -> bool:
        """Whether this is the chip at an address of an I2C bus; None is any."""
        number, _, place = self.place.partition("-")
        return (bus is None or number == str(bus)) and (address is None or place == f"{address:04x}")


def open_hwmon(
    *,
    clock: Clock,
    root: Path = Path("/"),
    bus: int | None = None,
    address: int | None = None,
    shunt_ohm: float | None = None,
    certificate: str | Path | None = None,
    rails: Sequence[str] | None = None,
) -> Hwmon:
    """Open the INA2xx or the INA3221 channels under `/sys/class/hwmon`.

    `bus` and `address` name the chip, `rails` its channels, or the chip, by label: by default an INA3221's module input
    if there is one, else the CPU and GPU rails of an AGX Orin, which together are not the whole board. `shunt_ohm` is
    the resistor of an INA2xx board as printed on it, `certificate` a file of `calibration/` with its resistance and
    gain; readings are corrected if the driver has another value.

    Raises: MeterNotFound if there is no such chip or rail; MeterAmbiguous if there are several and none is named;
    PowerError if the driver still has its default shunt and none is given.
    """
    folders = sorted(root.glob("sys/class/hwmon/hwmon*"), key=lambda path: (len(path.name), path.name))
    known = [_Chip.at(folder) for folder in folders if (folder / "name").exists()]
    metering = [chip for chip in known if chip.name == "ina3221" or chip.name in INA2XX_FULL_SCALE_V]
    chips = [chip for chip in metering if chip.sits_at(bus, address)]
    if metering and not chips:
        raise MeterNotFound(f"no power chip has that address: there are {_places(metering)}")
    if not chips:
        names = ", ".join(chip.name for chip in known) or "none"
        raise MeterNotFound(
            f"no INA2xx or INA3221 under {root / 'sys/class/hwmon'} (found: {names}): "
            "echo ina219 0x40 | sudo tee /sys/bus/i2c/devices/i2c-1/new_device"
        )
    channels = [rail for chip in chips if chip.name == "ina3221" for rail in _ina3221_rails(chip)]
    singles = [chip for chip in chips if chip.name != "ina3221"]
    if rails is not None and len(singles) == len(chips) == 1 and singles[0].label not in rails:
        raise InputError(f"an {singles[0].name} has one rail, {singles[0].label}: drop rails={list(rails)!r}")
    single = [chip for chip in singles if rails is None or chip.label in rails]
    if len(single) + bool(channels) > 1:
        raise MeterAmbiguous(f"several power chips, {_places(chips)}: name one with --i2c-address or --rail")
    if not channels and not single:
        raise MeterNotFound(f"no power chip is labelled {', '.join(rails or ())}: there are {_places(chips)}")
    if channels:
        if shunt_ohm is not None or certificate is not None:
            raise InputError("the shunts of an INA3221 are in its device tree: drop --shunt-ohm and the certificate")
        return _open_ina3221(clock, channels, rails)
    return _open_ina2xx(clock, single[0], shunt_ohm, certificate)


def _places(chips: Sequence[_Chip]) -> str:
    return ", ".join(f"{chip.label} at {chip.place}" for chip in chips)


def _update_s(chip: _Chip) -> float:
    return (read_optional_int(chip.folder / "update_interval") or 0) * 1e-3


def _open_ina2xx(clock: Clock, chip: _Chip, shunt_ohm: float | None, certificate: str | Path | None) -> Hwmon:
    folder = chip.folder
    record = None if certificate is None else load_certificate(certificate)
    if record is not None:
        shunt_ohm = record.checked_shunt(shunt_ohm)
    kernel_uohm = read_optional_int(folder / "shunt_resistor")
    if shunt_ohm is not None and not shunt_ohm > 0:
        raise InputError(f"a shunt has more than 0 ohm, got {shunt_ohm!r}: breakout boards carry 0.1 (R100)")
    if shunt_ohm is None and kernel_uohm == _DRIVER_DEFAULT_UOHM:
        raise PowerError(
            f"the {chip.name} driver assumes its default shunt of 0.01 ohm; an R100 board would read 10 times too "
            f"high: give shunt_ohm (0.1 or 0.01), or echo 100000 | sudo tee {folder / 'shunt_resistor'}"
        )
    kernel_ohm = kernel_uohm / 1e6 if kernel_uohm else shunt_ohm
    true_ohm = shunt_ohm if shunt_ohm is not None else kernel_ohm
    rail = Rail(
        label=chip.label,
        voltage=folder / "in1_input",
        current=folder / "curr1_input",
        power=folder / "power1_input" if certificate is None else None,  # with one, volts times corrected amperes
        shunt_ohm=true_ohm,
        full_scale_v=INA2XX_FULL_SCALE_V[chip.name],
        scale=kernel_ohm / true_ohm if kernel_ohm and true_ohm else 1.0,
        update_s=_update_s(chip),
    )
    if record is not None:
        rail = replace(rail, **record.corrections)  # type: ignore[arg-type]
    step_w = 20e-3 * rail.scale if chip.name in ("ina219", "ina220") else 25e-3 * rail.scale  # one step of old drivers
    return Hwmon(clock, [rail], "board input", step_w, ())


def _ina3221_rails(chip: _Chip) -> list[Rail]:
    rails, folder = [], chip.folder
    for channel in (1, 2, 3):  # in4 to in7 are shunt voltages and their sum
        label_file = folder / f"in{channel}_label"
        label = (read_text(label_file) if label_file.exists() else "") or f"channel {channel}"
        if label.lower() in _NOT_RAILS or read_optional_int(folder / f"in{channel}_enable") == 0:
            continue
        if not (folder / f"curr{channel}_input").exists():
            continue
        shunt_uohm = read_optional_int(folder / f"shunt{channel}_resistor")
        rails.append(
            Rail(
                label=label,
                voltage=folder / f"in{channel}_input",
                current=folder / f"curr{channel}_input",
                power=None,  # this driver has no power file
                shunt_ohm=shunt_uohm / 1e6 if shunt_uohm else None,
                full_scale_v=INA3221_SCALE,
                update_s=_update_s(chip),
            )
        )
    return rails


def part_of_board(labels: Sequence[str], known: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The scope of some of the `known` rails that are not a total, and the note about the others."""
    left_out = [label for label in known if label not in labels]
    note = f"not a total, rails left out: {', '.join(left_out) or 'none'}"
    return f"rails {'+'.join(labels)} only, not the whole board", (note,)


def _open_ina3221(clock: Clock, channels: list[Rail], rails: Sequence[str] | None) -> Hwmon:
    by_label = {rail.label: rail for rail in channels}
    defaults = [group for group in (_TOTAL_RAILS, _PART_RAILS) if all(label in by_label for label in group)]
    labels = tuple(rails) if rails is not None else (defaults[0] if defaults else ())
    missing = [label for label in labels if label not in by_label]
    if missing or not labels:
        raise MeterNotFound(
            f"the INA3221 rails here are {', '.join(by_label)}, "
            f"not {', '.join(missing) or 'those of a board known here'}: name some of them with rails"
        )
    chosen = [by_label[label] for label in labels]
    scope, notes = ("module input", ()) if labels == _TOTAL_RAILS else part_of_board(labels, list(by_label))
    steps_w = [_INA3221_STEP_V / rail.shunt_ohm * read_int(rail.voltage) * 1e-3 for rail in chosen if rail.shunt_ohm]
    return Hwmon(clock, chosen, scope, max(steps_w, default=0.0), notes)

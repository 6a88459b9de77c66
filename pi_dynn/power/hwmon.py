"""The meter `hwmon`: power chips with a kernel driver, INA2xx on any board and INA3221 on Jetsons.

Units of the files: millivolts, milliamperes, microwatts, micro-ohms (kernel, Documentation/hwmon).
"""

from dataclasses import dataclass
from pathlib import Path

from pi_dynn.clock import Clock
from pi_dynn.errors import InputError, MeterNotFound, PowerError
from pi_dynn.power.meter import MEASURED, EnergyMeter, MeterInfo, PowerSample, SampleFlags
from pi_dynn.power.sysfs import read_int, read_optional_int, read_text

_INA2XX_FULL_SCALE_V = {"ina219": 0.32, "ina220": 0.32, "ina226": 0.08192, "ina230": 0.08192, "ina231": 0.08192}
_INA3221_FULL_SCALE_V = 0.1638
_INA3221_STEP_V = 40e-6
_DRIVER_DEFAULT_UOHM = 10_000  # RSHUNT_DEFAULT of drivers/hwmon/ina2xx.c; breakout boards carry 100 000
_PERIOD_S = 0.01  # a default INA3221 converts its three channels in 6.6 ms, and a read may block for that

_TOTAL_RAILS = ("VDD_IN",)  # Orin Nano and NX: channel 1 is the whole module
_PART_RAILS = ("VDD_GPU_SOC", "VDD_CPU_CV")  # AGX Orin: parallel supplies, and there is no total
_NOT_RAILS = ("nc", "sum of shunt voltages")


@dataclass(frozen=True)
class Rail:
    """One channel of a chip: its files, and the factor that corrects a wrong shunt value in the driver."""

    label: str
    voltage: Path
    current: Path
    power: Path | None
    shunt_ohm: float | None
    full_scale_v: float
    scale: float = 1.0

    def read(self) -> tuple[float, float, float, bool]:
        """Watts, volts, amperes, and whether the current is clipped at the end of the range."""
        voltage_v = read_int(self.voltage) * 1e-3
        reported_a = read_int(self.current) * 1e-3
        current_a = reported_a * self.scale
        power_w = voltage_v * current_a if self.power is None else read_int(self.power) * 1e-6 * self.scale
        kernel_ohm = None if self.shunt_ohm is None else self.shunt_ohm * self.scale
        clipped = kernel_ohm is not None and abs(reported_a) * kernel_ohm >= 0.999 * self.full_scale_v
        return power_w, voltage_v, current_a, clipped


class Hwmon(EnergyMeter):
    """A meter that reads one or more rails from the kernel and adds up their power.

    Volts and amperes come from different conversions of the chip; the sample is stamped at the middle
    of the reads.
    """

    def __init__(self, clock: Clock, rails: list[Rail], scope: str, resolution_w: float, notes: tuple[str, ...]):
        self._clock = clock
        self._rails = rails
        shunts = {rail.shunt_ohm for rail in rails}
        self.info = MeterInfo(
            name="hwmon",
            scope=scope,
            rails=tuple(rail.label for rail in rails),
            resolution_w=resolution_w,
            nominal_period_s=_PERIOD_S,
            measured=True,
            label=MEASURED,
            shunt_ohm=shunts.pop() if len(shunts) == 1 else None,
            notes=notes,
        )
        for rail in rails:
            if rail.read()[2] < 0:
                raise PowerError(f"the current of rail {rail.label} flows backwards: swap the leads of its shunt")

    def read(self) -> PowerSample:
        start_ns = self._clock.now_ns()
        readings = [rail.read() for rail in self._rails]
        middle_ns = (start_ns + self._clock.now_ns()) // 2
        flags = SampleFlags.CLIPPED if any(clipped for *_, clipped in readings) else SampleFlags.NONE
        if any(current_a < 0 for _, _, current_a, _ in readings):
            flags |= SampleFlags.REVERSED
        power_w = sum(power_w for power_w, *_ in readings)
        if len(readings) > 1:  # several rails have no voltage in common
            return PowerSample(middle_ns, power_w, flags=flags)
        _, voltage_v, current_a, _ = readings[0]
        return PowerSample(middle_ns, power_w, voltage_v, current_a, flags)


def open_hwmon(
    *, clock: Clock, root: Path = Path("/"), shunt_ohm: float | None = None, rails: list[str] | None = None
) -> Hwmon:
    """Open the first INA2xx or the INA3221 channels under `/sys/class/hwmon`.

    `shunt_ohm` is the resistor of an INA2xx board as printed on it; readings are corrected if the driver has another
    value. `rails` selects INA3221 channels by label: by default the module's input if there is one, else the
    CPU and GPU rails of an AGX Orin, which together are not the whole board.

    Raises: MeterNotFound if there is no such chip or rail; PowerError if the driver still has its
    default shunt and `shunt_ohm` is not given.
    """
    chips = sorted(root.glob("sys/class/hwmon/hwmon*"), key=lambda path: (len(path.name), path.name))
    named = [(chip, read_text(chip / "name")) for chip in chips if (chip / "name").exists()]
    channels = [rail for chip, name in named if name == "ina3221" for rail in _ina3221_rails(chip)]
    if channels:
        return _open_ina3221(clock, channels, rails)
    for chip, name in named:
        if name in _INA2XX_FULL_SCALE_V:
            if rails is not None:
                raise InputError(f"an {name} has one rail, drop rails={rails!r}")
            return _open_ina2xx(clock, chip, name, shunt_ohm)
    names = ", ".join(name for _, name in named) or "none"
    raise MeterNotFound(
        f"no INA2xx or INA3221 under {root / 'sys/class/hwmon'} (found: {names}): "
        "echo ina219 0x40 | sudo tee /sys/bus/i2c/devices/i2c-1/new_device"
    )


def _open_ina2xx(clock: Clock, chip: Path, name: str, shunt_ohm: float | None) -> Hwmon:
    kernel_uohm = read_optional_int(chip / "shunt_resistor")
    if shunt_ohm is not None and not shunt_ohm > 0:
        raise InputError(f"a shunt has more than 0 ohm, got {shunt_ohm!r}: breakout boards carry 0.1 (R100)")
    if shunt_ohm is None and kernel_uohm == _DRIVER_DEFAULT_UOHM:
        raise PowerError(
            f"the {name} driver assumes its default shunt of 0.01 ohm; an R100 board would read 10 times too high: "
            f"give shunt_ohm (0.1 or 0.01), or echo 100000 | sudo tee {chip / 'shunt_resistor'}"
        )
    kernel_ohm = kernel_uohm / 1e6 if kernel_uohm else shunt_ohm
    true_ohm = shunt_ohm if shunt_ohm is not None else kernel_ohm
    rail = Rail(
        label=name,
        voltage=chip / "in1_input",
        current=chip / "curr1_input",
        power=chip / "power1_input",
        shunt_ohm=true_ohm,
        full_scale_v=_INA2XX_FULL_SCALE_V[name],
        scale=kernel_ohm / true_ohm if kernel_ohm and true_ohm else 1.0,
    )
    step_w = 20e-3 * rail.scale if name in ("ina219", "ina220") else 25e-3 * rail.scale  # one step of old drivers
    return Hwmon(clock, [rail], "board input", step_w, ())


def _ina3221_rails(chip: Path) -> list[Rail]:
    rails = []
    for channel in (1, 2, 3):  # in4 to in7 are shunt voltages and their sum
        label_file = chip / f"in{channel}_label"
        label = read_text(label_file) if label_file.exists() else ""
        if not label or label.lower() in _NOT_RAILS or read_optional_int(chip / f"in{channel}_enable") == 0:
            continue
        shunt_uohm = read_optional_int(chip / f"shunt{channel}_resistor")
        rails.append(
            Rail(
                label=label,
                voltage=chip / f"in{channel}_input",
                current=chip / f"curr{channel}_input",
                power=None,  # this driver has no power file
                shunt_ohm=shunt_uohm / 1e6 if shunt_uohm else None,
                full_scale_v=_INA3221_FULL_SCALE_V,
            )
        )
    return rails


def _open_ina3221(clock: Clock, channels: list[Rail], rails: list[str] | None) -> Hwmon:
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
    whole = labels == _TOTAL_RAILS
    scope = "module input" if whole else f"rails {'+'.join(labels)} only, not the whole board"
    left_out = [label for label in by_label if label not in labels]
    notes = () if whole else (f"not a total, rails left out: {', '.join(left_out) or 'none'}",)
    steps_w = [_INA3221_STEP_V / rail.shunt_ohm * read_int(rail.voltage) * 1e-3 for rail in chosen if rail.shunt_ohm]
    return Hwmon(clock, chosen, scope, max(steps_w, default=0.0), notes)

"""The meter `iio`: power chips behind the kernel's IIO drivers, ina2xx-adc on any board and ina3221x on older Jetsons.

The IIO and hwmon drivers are alternatives for the same chips. Units: ina2xx-adc gives raw numbers and their scales in
millivolts, milliamperes; ina3221x (JetPack 4) gives millivolts and milliamperes by rail.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pi_dynn.clock import Clock
from pi_dynn.errors import MeterAmbiguous, MeterBusError, MeterNotFound
from pi_dynn.power.hwmon import INA2XX_FULL_SCALE_V, INA3221_SCALE, Hwmon, Rail, part_of_board
from pi_dynn.power.sysfs import read_int, read_text

_TOTAL_RAILS = ("POM_5V_IN", "VDD_IN")
_VOLTAGE, _CURRENT = "in_voltage1", "in_current3"


@dataclass(frozen=True)
class ScaledRail(Rail):
    """A rail whose files hold raw numbers, each with a file of its scale beside it."""

    def read(self) -> tuple[float, float, float, bool]:
        voltage_v, current_a = self.volts(), _scaled(self.current) * 1e-3
        clipped = self.shunt_ohm is not None and abs(current_a) * self.shunt_ohm >= 0.999 * self.full_scale_v
        return voltage_v * current_a, voltage_v, current_a, clipped

    def volts(self) -> float:
        return _scaled(self.voltage) * 1e-3


def _scaled(path: Path) -> float:
    scale = read_text(path.with_name(path.name.replace("_raw", "_scale")))
    try:
        return read_int(path) * float(scale)
    except ValueError as error:
        raise MeterBusError(
            f"{path.parent}: has the scale {scale!r}, no number: is its driver the right one?"
        ) from error


def open_iio(*, clock: Clock, root: Path = Path("/"), rails: Sequence[str] | None = None) -> Hwmon:
    """Open the INA2xx or the rails of an ina3221x under `/sys/bus`; `rails` chooses by label.

    By default it is the only INA2xx, or the module's input of a Jetson.

    Raises: MeterNotFound if there is no such chip or rail; MeterAmbiguous if there are several and none is named.
    """
    found = {rail.label: rail for rail in (*_ina2xx(root), *_ina3221x(root))}
    if not found:
        raise MeterNotFound(f"no ina2xx or ina3221x under {root / 'sys/bus'}: is the chip behind hwmon, or unbound?")
    if rails is not None:
        missing = [label for label in rails if label not in found]
        if missing:
            raise MeterNotFound(f"the IIO rails here are {', '.join(found)}, not {', '.join(missing)}")
        chosen = [found[label] for label in rails]
    else:
        total = [rail for label, rail in found.items() if label in _TOTAL_RAILS]
        chosen = total[:1] or list(found.values())
        if len(chosen) > 1:
            raise MeterAmbiguous(f"several rails, {', '.join(found)}: name some of them with --rail")
    labels = [rail.label for rail in chosen]
    whole = len(labels) == 1 and (labels[0] in _TOTAL_RAILS or isinstance(chosen[0], ScaledRail))
    total_scope = "module input" if labels[0] in _TOTAL_RAILS else "board input"
    scope, notes = (total_scope, ()) if whole else part_of_board(labels, list(found))
    return Hwmon(clock, chosen, scope, resolution_w=5e-3, notes=notes, name="iio")


def _ina2xx(root: Path) -> list[Rail]:
    rails: list[Rail] = []
    for device in sorted(root.glob("sys/bus/iio/devices/iio:device*")):
        name = read_text(device / "name") if (device / "name").exists() else ""
        if name not in INA2XX_FULL_SCALE_V or not (device / f"{_CURRENT}_raw").exists():
            continue
        shunt = device / "in_shunt_resistor"
        rails.append(
            ScaledRail(
                label=name if not rails else f"{name} {len(rails) + 1}",
                voltage=device / f"{_VOLTAGE}_raw",
                current=device / f"{_CURRENT}_raw",
                power=None,
                shunt_ohm=float(read_text(shunt)) if shunt.exists() else None,
                full_scale_v=INA2XX_FULL_SCALE_V[name],
            )
        )
    return rails


def _ina3221x(root: Path) -> list[Rail]:
    rails = []
    for device in sorted(root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*")):
        for channel in (0, 1, 2):
            label = device / f"rail_name_{channel}"
            if not label.exists() or read_text(label) in ("", "NC"):
                continue
            rails.append(
                Rail(
                    label=read_text(label),
                    voltage=device / f"in_voltage{channel}_input",
                    current=device / f"in_current{channel}_input",
                    power=None,
                    shunt_ohm=None,
                    full_scale_v=INA3221_SCALE,
                )
            )
    return rails

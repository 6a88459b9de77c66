"""Options that name a power meter and say what it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_OPTIONS = (
    click.option(
        "--meter",
        "meter_name",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="ina219, ina226, ina228, ina260, pi-ina219, hwmon, iio, rapl, pmic, estimate, fake, tcp://HOST:PORT, "
        "replay:FILE, or auto: the first that measures.",
    ),
    click.option("--require-meter", is_flag=True, help="Fail with status 3 rather than estimate."),
    click.option("--shunt-ohm", type=click.FloatRange(0.0, min_open=True), help="Shunt of the meter. [default: 0.1]"),
    click.option(
        "--max-current",
        "max_current_a",
        type=click.FloatRange(0.0, min_open=True),
        metavar="A",
        help="Largest current to expect, which sets the gain.",
    ),
    click.option("--i2c-bus", "bus", type=click.IntRange(0), metavar="N", help="I2C bus of the meter. [default: 1]"),
    click.option("--i2c-address", "address", metavar="ADDRESS", help="Its address, as 0x41. [default: the only chip]"),
    click.option("--rail", "rails", multiple=True, metavar="LABEL", help="Rail or chip of the kernel's; repeatable."),
    click.option(
        "--shunt-certificate",
        "certificate",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Calibration of the shunt, from calibration/.",
    ),
)
_BACKEND_OPTIONS = ("shunt_ohm", "max_current_a", "bus", "address", "rails", "certificate")


def meter_options(command: Callable) -> Callable:
    """--meter, --require-meter and what an INA219 needs to know."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_backend_options(options: dict[str, Any]) -> dict[str, Any]:
    """Move what belongs to the meter's backend out of `options`; what was not given is left to the backend."""
    backend = {name: options.pop(name) for name in _BACKEND_OPTIONS}
    if backend["address"] is not None:
        try:
            backend["address"] = int(backend["address"], 0)
        except ValueError:
            raise click.UsageError(f"--i2c-address {backend['address']!r}: expected a number such as 0x40") from None
    return {name: value for name, value in backend.items() if value is not None and value != ()}

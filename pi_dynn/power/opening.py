"""Opening of meters by name. A backend is imported only when it is opened."""

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from pi_dynn.clock import Clock, PerfClock
from pi_dynn.errors import InputError, MeterAmbiguous, MeterNotFound, PowerError
from pi_dynn.power.meter import EnergyMeter

_BACKENDS = {
    "ina219": "pi_dynn.power.ina.ina219:open_ina219",
    "ina226": "pi_dynn.power.ina.ina226:open_ina226",
    "ina228": "pi_dynn.power.ina.ina228:open_ina228",
    "ina260": "pi_dynn.power.ina.ina226:open_ina260",
    "pi-ina219": "pi_dynn.power.ina.pi_ina219:open_pi_ina219",
    "hwmon": "pi_dynn.power.hwmon:open_hwmon",
    "iio": "pi_dynn.power.iio:open_iio",
    "rapl": "pi_dynn.power.rapl:open_rapl",
    "pmic": "pi_dynn.power.pmic:open_pmic",
    "estimate": "pi_dynn.power.estimate:open_estimate",
    "external": "pi_dynn.power.external:open_external",
    "tcp": "pi_dynn.power.remote:open_remote",
    "replay": "pi_dynn.power.replay:open_replay",
    "fake": "pi_dynn.power.fake:open_fake",
}
_AUTO_ORDER = ("ina219", "ina226", "ina228", "ina260", "pi-ina219", "hwmon", "iio", "rapl", "pmic")
"""What `auto` tries: real meters, the whole board before parts of it. Never `fake`, never `replay`."""
_WITH_ARGUMENT = {"replay": "path", "tcp": "address"}
_INJECTED = ("run",)  # how a command is run, which is no wish of the user


def meter_names() -> tuple[str, ...]:
    """All names that `open_meter` accepts."""
    return (*_BACKENDS, "auto")


def open_meter(
    spec: str = "auto",
    *,
    clock: Clock | None = None,
    root: str | Path = "/",
    require: bool = False,
    **options: Any,
) -> EnergyMeter:
    """Open the meter called `spec`; close it again, or use it in a `with`.

    `spec` is a name of `meter_names()`, or `replay:FILE`. `auto` takes the first real meter that answers and takes
    every option given, and without options otherwise `estimate`. All paths are
    below `root`. `options` go to the backend (`bus`, `address`, `shunt_ohm`, ...).

    Raises: InputError for an unknown name or option; MeterNotFound if the meter is not there, or if
    `require` is set and the meter does not measure (the message lists what was tried);
    MeterDenied if this user may not read it; MeterBusError if it does not answer properly.
    """
    clock = clock or PerfClock()
    name, _, argument = spec.partition(":")
    if argument and name in _WITH_ARGUMENT:
        options[_WITH_ARGUMENT[name]] = argument.removeprefix("//") if name == "tcp" else argument
    if name == "auto":
        return _open_auto(clock, Path(root), require, options)
    needed = _WITH_ARGUMENT.get(name)
    if name not in _BACKENDS or (argument and needed is None) or (needed is not None and not options.get(needed)):
        names = ", ".join(meter_names())
        raise InputError(f"no meter is called {spec!r}: choose one of {names} (replay:FILE, tcp://HOST:PORT)")
    meter = _open(name, clock, Path(root), options)
    if require and not meter.info.measured:
        meter.close()
        raise MeterNotFound(f"{spec!r} does not measure ({meter.info.label}): name a real meter, or do not require one")
    return meter


def _backend(name: str) -> Callable[..., EnergyMeter]:
    module, _, function = _BACKENDS[name].partition(":")
    backend: Callable[..., EnergyMeter] = getattr(import_module(module), function)
    return backend


def _open(name: str, clock: Clock, root: Path, options: dict[str, Any]) -> EnergyMeter:
    backend = _backend(name)
    known = [option for option in inspect.signature(backend).parameters if option not in ("clock", "root")]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"the meter {name!r} has no option {unknown[0]!r}: it takes {', '.join(known) or 'none'}")
    return backend(clock=clock, root=root, **options)


def _open_auto(clock: Clock, root: Path, require: bool, options: dict[str, Any]) -> EnergyMeter:
    """The first real meter that opens and takes all options of the user, else the estimate.

    Only a PowerError leads to the next; others are raised, and so is a choice that only the user can make.
    """
    tried: dict[str, list[str]] = {}  # names of meters by why they cannot be had
    wanted = {name for name, value in options.items() if name not in _INJECTED and value is not None}
    for name in _AUTO_ORDER:
        takes = inspect.signature(_backend(name)).parameters
        if not wanted <= takes.keys():
            tried.setdefault(f"takes no {', '.join(sorted(wanted - takes.keys()))}", []).append(name)
            continue
        try:
            return _open(name, clock, root, {key: value for key, value in options.items() if key in takes})
        except MeterAmbiguous:
            raise
        except PowerError as error:
            tried.setdefault(str(error), []).append(name)
    if require or wanted:
        reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in tried.items())
        raise MeterNotFound(f"no power meter found, name one with --meter or wire one up; tried {reasons}")
    return _open("estimate", clock, root, {})  # `pi-dynn doctor` says why each of the others is not there

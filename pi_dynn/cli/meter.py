"""`pi-dynn meter`."""

import json
from typing import Any

import click

from pi_dynn.cli.meter_options import meter_options, take_backend_options
from pi_dynn.cli.options import json_option
from pi_dynn.cli.status import ExitStatus
from pi_dynn.text import counted


@click.command()
@click.option("--serve", metavar="HOST:PORT", help="Serve its samples to another board, as 0.0.0.0:7219.")
@click.option("--seconds", type=click.FloatRange(0.0, min_open=True), help="Show this long. [default: until Ctrl-C]")
@meter_options
@json_option
def command(
    serve: str | None, seconds: float | None, meter_name: str, require_meter: bool, as_json: bool, **backend: Any
) -> int:
    """Show what a power meter reads, once a second; or serve it to the board where the work runs.

    A meter on a second board sees the work without taking part in it: connect the sensor there, serve it, and give
    `--meter tcp://HOST:PORT` to the board that works. The clocks of the two are compared all the time, and their error
    stands in the notes. Only for a network that you trust: whoever connects may read.

    \b
    Examples:
      pi-dynn meter --meter ina219
      pi-dynn meter --meter ina219 --serve 0.0.0.0:7219
      pi-dynn energy --meter tcp://sensor.local:7219
    """
    from pi_dynn.clock import PerfClock
    from pi_dynn.power import open_meter

    clock = PerfClock()
    options = take_backend_options(backend)
    with open_meter(meter_name, clock=clock, require=require_meter, **options) as meter:
        try:
            return _serve(serve, meter, clock) if serve is not None else _show(meter, clock, seconds, as_json)
        except KeyboardInterrupt:
            return ExitStatus.OK  # the way to end it


def _show(meter: Any, clock: Any, seconds: float | None, as_json: bool) -> int:
    from pi_dynn.power import Sampler
    from pi_dynn.power.meter import UNUSABLE

    with Sampler(meter, clock) as sampler:
        start_ns = before_ns = clock.now_ns()
        while seconds is None or (clock.now_ns() - start_ns) * 1e-9 < seconds:
            clock.sleep(1.0 if seconds is None else min(1.0, seconds))
            trace = sampler.trace_since(before_ns)
            new = (trace.t_ns > before_ns) & ((trace.flags & int(UNUSABLE)) == 0)
            before_ns = clock.now_ns()
            if trace.error is not None:
                raise click.ClickException(trace.error)
            if trace.power_w is None:
                steps_s = (trace.t_ns[-1] - trace.t_ns[0]) * 1e-9 if len(trace.t_ns) > 1 else 0.0
                power_w = (trace.values[-1] - trace.values[0]) / steps_s if steps_s > 0 else float("nan")
            else:
                power_w = trace.power_w[new].mean() if new.any() else float("nan")
            values = {
                "power_w": None if power_w != power_w else float(power_w),
                "voltage_v": _mean(trace.voltage_v[new]),
                "current_a": _mean(trace.current_a[new]),
                "samples": int(new.sum()),
                "meter": meter.info.name,
                "label": meter.info.label,
            }
            click.echo(json.dumps(values) if as_json else _line(values))
    return ExitStatus.OK


def _mean(values: Any) -> float | None:
    known = values[values == values]
    return float(known.mean()) if len(known) else None


def _line(values: dict[str, Any]) -> str:
    def text(name: str, unit: str) -> str:
        return f"{'-' if values[name] is None else format(values[name], '.3f')} {unit}"

    power, volts, amperes = text("power_w", "W"), text("voltage_v", "V"), text("current_a", "A")
    return f"{power}  {volts}  {amperes}  {counted(values['samples'], 'sample')}  {values['meter']}, {values['label']}"


def _serve(address: str, meter: Any, clock: Any) -> int:
    from pi_dynn.errors import InputError
    from pi_dynn.power.serving import MeterServer

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise click.UsageError(f"--serve {address}: give HOST:PORT, as 0.0.0.0:7219")
    try:
        server = MeterServer((host.strip("[]"), int(port)), meter, clock)
    except OSError as error:
        raise InputError(f"cannot serve at {address} ({error.strerror or error}): choose another port") from error
    with server:
        click.echo(f"tcp://{host}:{server.server_address[1]} serves {meter.info.name}, {meter.info.label}", err=True)
        server.serve_forever(poll_interval=0.2)
    return ExitStatus.OK

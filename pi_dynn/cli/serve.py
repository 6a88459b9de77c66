"""`pi-dynn serve`."""

import os
import signal
import socket
from contextlib import ExitStack
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import click

from pi_dynn.cli.meter_options import meter_options, take_backend_options
from pi_dynn.cli.options import SessionChoice, accept_all_option, session_options
from pi_dynn.errors import InputError, need_extra
from pi_dynn.text import counted

if TYPE_CHECKING:
    from pi_dynn.power.live import LivePower

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
BACKLOG = 16  # accepted at once, before any is closed: more would use up a small number of descriptors
GRACE_S = 4  # for what was accepted, before the end
MOST_PIXELS = 30_000_000  # of a picture as it is decoded: 90 MB, where a file of some kilobytes may claim a gigabyte


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--token", envvar="PI_DYNN_TOKEN", help="Secret a visitor must bring; needed for any other host.")
@click.option("--queue", "room", type=click.IntRange(1), default=8, show_default=True, help="Images that may wait.")
@click.option("--max-mb", type=click.FloatRange(0.001), default=20.0, show_default=True, help="Largest upload.")
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Also answer requests for this name, as through a proxy. [default: this machine's, or any with a token]",
)
@click.option("--no-energy", is_flag=True, help="Leave the power meter alone.")
@meter_options
@accept_all_option
@session_options
def command(
    host: str,
    port: int,
    token: str | None,
    room: int,
    max_mb: float,
    hosts: tuple[str, ...],
    no_energy: bool,
    choice: SessionChoice,
    **meter: Any,
) -> None:
    """Serve a page and an HTTP API: an image in, its label, exit, latency and energy out, live.

    POST /classify takes an image as the body or in a form; GET /events streams every answer, GET /metrics is for
    Prometheus, GET /healthz for a supervisor. With a token, send `Authorization: Bearer TOKEN`, or open the page
    as /?token=TOKEN. Ctrl-C or SIGTERM answers what is waiting, then ends.

    \b
    Examples:
      pi-dynn serve
      PI_DYNN_TOKEN=secret pi-dynn serve --host 0.0.0.0
      curl --data-binary @photo.jpg http://127.0.0.1:8000/classify
    """
    if not _is_local(host) and not token:
        raise click.UsageError(f"--host {host} lets others in: give --token, or set PI_DYNN_TOKEN")
    with need_extra("serve", "serve"):
        import uvicorn

        from pi_dynn.web.app import WebSettings, build_app
        from pi_dynn.web.limits import Connections, limited_protocol, most_connections
    from pi_dynn.classify.live import LiveClassifier
    from pi_dynn.clock import PerfClock
    from pi_dynn.data.decode import MAX_PIXELS_VARIABLE
    from pi_dynn.power import open_meter
    from pi_dynn.power.live import LivePower

    os.environ.setdefault(MAX_PIXELS_VARIABLE, str(MOST_PIXELS))
    session = choice.open()
    clock = PerfClock()
    with ExitStack() as stack:
        power: LivePower | None = None
        if not no_energy:
            name, require = meter.pop("meter_name"), meter.pop("require_meter")
            source = open_meter(name, clock=clock, require=require, **take_backend_options(meter))
            power = LivePower(stack.enter_context(source), clock)
            stack.enter_context(power)
        classifier = LiveClassifier(session, clock, power, room)
        allowed = (*LOCAL_NAMES, *hosts) if _is_local(host) else hosts
        app = build_app(classifier, WebSettings(token, round(max_mb * 1e6), tuple(allowed) or None))
        protocol = limited_protocol(Connections(most_connections()))
        check_port(host, port)
        config = uvicorn.Config(
            app,
            host,
            port,
            http=protocol,
            log_level="warning",
            timeout_graceful_shutdown=GRACE_S,
            backlog=BACKLOG,
        )
        threads = counted(session.threads, "thread")
        click.echo(f"http://{host}:{port}  {session.engine}, {threads}{_said_of(power)}", err=True)
        # uvicorn sends itself the signal again once it has ended: as an orderly end, not as a death by it.
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            uvicorn.Server(config).run()
        finally:
            signal.signal(signal.SIGTERM, before)


def check_port(host: str, port: int) -> None:
    """Raises: InputError if nothing may listen there, before anybody is told the address."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        reason = str(error.strerror or error).partition(" (while")[0]  # Python adds the address again
        raise InputError(f"cannot listen on {host}:{port} ({reason}): choose another --port") from error


def _said_of(power: "LivePower | None") -> str:
    from pi_dynn.power.meter import ESTIMATED

    if power is None:
        return ""
    return f", energy {power.info.label}" + ("" if power.info.label == ESTIMATED else f" by {power.info.name}")


def _is_local(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False

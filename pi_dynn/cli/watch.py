"""`pi-dynn watch`."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from pi_dynn.cli.options import (
    NUMBERS,
    SessionChoice,
    accept_all_option,
    bundle_option,
    enabled_option,
    engine_option,
    no_exit_option,
    threads_option,
    threshold_option,
    thresholds_option,
    trust_option,
    with_choice,
    with_thresholds,
)
from pi_dynn.cli.status import ExitStatus, show_error
from pi_dynn.cli.watch_service import check_password, described_service, run_service

if TYPE_CHECKING:
    from pi_dynn.classify.home_assistant import HomeAssistant
    from pi_dynn.classify.service import Supervisor
    from pi_dynn.classify.swap import SwappingSession
    from pi_dynn.classify.unsure import UnsurePictures
    from pi_dynn.classify.watcher import Watcher, WatchSettings
    from pi_dynn.data.region import Region
    from pi_dynn.runtime.manifest import Manifest
    from pi_dynn.runtime.session import Session

AT_LEAST_S = 60.0


class WatchCommand(cloup.Command):
    """Keeps the words of the command line, for the unit of a service."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["words"] = list(args)
        return super().parse_args(ctx, args)


def _region(context: click.Context, parameter: click.Parameter, value: list[float] | None) -> "Region | None":
    from pi_dynn.data.region import Region
    from pi_dynn.errors import InputError

    if value is None:
        return None
    try:
        return Region(*value)
    except (TypeError, InputError) as error:
        raise click.BadParameter("expected four numbers X,Y,W,H: shares of the picture, or pixels") from error


@click.command(cls=WatchCommand)
@click.argument("source")
@cloup.option_group(
    "When",
    cloup.option(
        "--every", "every_s", type=click.FloatRange(0.0), default=0.0, metavar="S", help="Seconds in between."
    ),
    cloup.option("--count", "limit", type=click.IntRange(1), metavar="N", help="End after N frames."),
    cloup.option("--motion", is_flag=True, help="Skip frames that show what the last answered one did."),
    cloup.option(
        "--at-least",
        "at_least_s",
        type=click.FloatRange(0.0, min_open=True),
        metavar="S",
        help=f"With --motion, answer one every S seconds anyway. [default: {AT_LEAST_S:g}]",
    ),
    cloup.option(
        "--roi",
        type=NUMBERS,
        callback=_region,
        metavar="X,Y,W,H",
        help="Look at that part only: shares of the picture if none is above 1, otherwise pixels.",
    ),
)
@cloup.option_group(
    "What is told",
    cloup.option(
        "--agree",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="N",
        help="Tell a change of the label once N answers running have it.",
    ),
    cloup.option("--top", type=click.IntRange(1), default=1, show_default=True, help="Show the N likeliest classes."),
    accept_all_option,
    cloup.option(
        "--save-unsure",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Save pictures with an unsure answer there, for later labelling.",
    ),
    cloup.option(
        "--unsure-below", type=click.FloatRange(0.0, 1.0), default=0.5, show_default=True, help="In probability."
    ),
    cloup.option(
        "--quota-mb", type=click.FloatRange(0.0), default=500.0, show_default=True, help="Save no more than that."
    ),
)
@cloup.option_group(
    "Where to",
    cloup.option(
        "--mqtt",
        envvar="PI_DYNN_MQTT",
        metavar="URL",
        help="Publish to mqtt://host:port/topic instead; a password is better kept in PI_DYNN_MQTT.",
    ),
    cloup.option("--home-assistant", is_flag=True, help="Be a device of Home Assistant, on the broker of --mqtt."),
    cloup.option(
        "--service",
        type=click.Choice(["install", "remove", "status"]),
        help="Run this line as a service of systemd, from now on and after every start.",
    ),
    cloup.option(
        "--dry-run", is_flag=True, help="Print the service's unit, or what Home Assistant is told; do no more."
    ),
)
@cloup.option_group(
    "Network",
    bundle_option,
    trust_option,
    engine_option,
    threads_option,
    enabled_option,
    threshold_option,
    thresholds_option,
    no_exit_option,
    cloup.option(
        "--deadline-ms", type=click.FloatRange(0.0), help="Answer at the next exit once this much time has passed."
    ),
)
@with_choice
@with_thresholds
@click.pass_context
def command(
    context: click.Context,
    /,
    source: str,
    choice: SessionChoice,
    service: str | None,
    dry_run: bool,
    mqtt: str | None,
    home_assistant: bool,
    **given: Any,
) -> int:
    """Classify what a camera, a video or a folder shows now, as JSON lines.

    SOURCE is `camera` or a number, /dev/video0, `picamera` for a camera module, rtsp:// or http:// for a stream,
    a video file, a folder that fills, or `fake`. Each time the newest frame is answered; those in between are
    dropped, never queued. A camera or broker that goes away is waited for. Another file in the bundle's place is
    taken over once it has passed a test, also at SIGHUP. Ctrl-C or SIGTERM ends with a summary.

    \b
    Examples:
      pi-dynn watch camera --every 5
      pi-dynn watch camera --every 1 --motion --agree 3
      pi-dynn watch incoming/ --mqtt mqtt://broker.local/garden/birds --home-assistant
    """
    words = context.meta["words"]
    if home_assistant and mqtt is None:
        raise click.UsageError("--home-assistant needs the broker: give --mqtt mqtt://host/topic")
    if given["at_least_s"] is not None and not given["motion"]:
        raise click.UsageError("--at-least says how often a still picture is answered: give --motion, too")
    if service is not None:
        from pi_dynn.data.watch_sources import without_password

        check_password(mqtt, words)
        unit = described_service(without_password(source), words, given["save_unsure"])
        if not dry_run:
            return run_service(service, unit, mqtt is not None and not any(mqtt in word for word in words))
        click.echo(unit.unit, nl=False)
        return ExitStatus.OK
    if dry_run:
        if not home_assistant:
            raise click.UsageError("--dry-run prints what --service or --home-assistant would do: give one of them")
        return _show_discovery(source, choice, mqtt or "")
    return _watch(source, choice, mqtt, home_assistant, given)


def _show_discovery(source: str, choice: SessionChoice, mqtt: str) -> int:
    """Print what Home Assistant would be told, one JSON object for each message."""
    from pi_dynn.classify.mqtt import parse_broker

    for message in _device(source, parse_broker(mqtt).topic, choice.load_bundle().manifest).discovery():
        line = {"topic": message.topic, "retain": message.retain, "payload": json.loads(message.payload)}
        click.echo(json.dumps(line))
    return ExitStatus.OK


def _watch(source: str, choice: SessionChoice, mqtt: str | None, home_assistant: bool, given: dict[str, Any]) -> int:
    """Watch until the source ends, or somebody ends it."""
    from pi_dynn.classify.mqtt import MqttPublisher, parse_broker
    from pi_dynn.classify.service import Supervisor
    from pi_dynn.classify.swap import SwappingSession
    from pi_dynn.classify.text import watch_line
    from pi_dynn.classify.watcher import Watcher
    from pi_dynn.clock import PerfClock
    from pi_dynn.data.watch_sources import open_feed
    from pi_dynn.power.estimate import model_of_this_board
    from pi_dynn.runtime.engine_choice import usable_cores

    clock, publisher, home = PerfClock(), None, None
    broker = None if mqtt is None else parse_broker(mqtt)
    settings, pictures, supervisor = _settings(**given), _pictures(**given), Supervisor(clock)

    def open_session(threads: int | None) -> "Session":
        session = replace(choice, threads=threads).open()
        session.resolve_thresholds(settings.thresholds)  # raises at once, not at the first frame
        return session

    with ending_on_sigterm() as terminated, ExitStack() as stack:
        feed = stack.enter_context(open_feed(source, clock, _say))
        first = open_session(choice.threads)
        session = SwappingSession(first, choice.bundle_file(), lambda: open_session(first.threads), clock, _say)
        if broker is not None:
            home = _device(source, broker.topic, session.manifest) if home_assistant else None
            publisher = stack.enter_context(MqttPublisher(broker, _say, home))
        watcher = Watcher(
            feed, session, settings, clock, _now, supervisor, pictures=pictures, publisher=publisher, home=home
        )
        _say(f"watching {feed.name}  ({session.engine}, {session.threads} threads); Ctrl-C ends")
        with asking_on_sighup(session):
            interrupted = _tell(watcher, supervisor, quiet=publisher is not None)
        stack.close()  # after the last message was waited for
        summary = watcher.summary(interrupted, model_of_this_board(), usable_cores())
        click.echo(json.dumps({"summary": summary.to_dict()}))
        _say(watch_line(summary))
    if terminated:  # a supervisor takes anything but 0 for a crash; frames that failed are in the summary
        return ExitStatus.OK
    if interrupted:
        return ExitStatus.INTERRUPTED
    return ExitStatus.ERROR if summary.failed else ExitStatus.OK


def _tell(watcher: "Watcher", supervisor: "Supervisor", quiet: bool) -> bool:
    """Print the lines, unless they are `quiet`; errors go to stderr, too. Returns whether somebody ended it."""
    supervisor.ready()
    try:
        for line in watcher.lines():
            if "error" in line:
                show_error(line["error"])
            if not quiet:
                click.echo(json.dumps(line))
    except KeyboardInterrupt:
        return True
    finally:
        supervisor.stopping()
    return False


def _settings(
    *, motion: bool, at_least_s: float | None, deadline_ms: float | None, roi: "Region | None", **given: Any
) -> "WatchSettings":
    from pi_dynn.classify.watcher import WatchSettings

    names = ("every_s", "limit", "agree", "thresholds", "top")
    return WatchSettings(
        at_least_s=(at_least_s or AT_LEAST_S) if motion else None,
        deadline_s=None if deadline_ms is None else deadline_ms / 1e3,
        region=roi,
        **{name: given[name] for name in names},
    )


def _pictures(
    *, save_unsure: Path | None, quota_mb: float, unsure_below: float, **given: Any
) -> "UnsurePictures | None":
    from pi_dynn.classify.unsure import UnsurePictures

    if save_unsure is None:
        return None
    return UnsurePictures(save_unsure, round(quota_mb * 1e6), _now, unsure_below, _say)


def _device(source: str, topic: str, manifest: "Manifest") -> "HomeAssistant":
    """The device that Home Assistant shows for the source."""
    from pi_dynn.classify.home_assistant import HomeAssistant
    from pi_dynn.data.watch_sources import without_password

    return HomeAssistant(topic, without_password(source), manifest.labels, manifest.model)


@contextmanager
def ending_on_sigterm() -> Iterator[list[int]]:
    """SIGTERM, which a supervisor sends, ends the block as Ctrl-C does; the list yielded is then not empty."""
    received: list[int] = []

    def end(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    with _handling(signal.SIGTERM, end):
        yield received


@contextmanager
def asking_on_sighup(session: "SwappingSession") -> Iterator[None]:
    """SIGHUP, which `systemctl reload` sends, makes the session load its bundle anew."""
    with _handling(signal.SIGHUP, lambda number, frame: session.ask()):
        yield


@contextmanager
def _handling(number: int, handler: Callable[[int, object], None]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _say(text: str) -> None:
    click.echo(text, err=True)

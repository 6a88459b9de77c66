"""`pi-dynn watch`."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pi_dynn.cli.calibration_options import battery_percent, check_planning, chosen_plan
from pi_dynn.cli.options import SessionChoice, with_choice, with_thresholds
from pi_dynn.cli.status import ExitStatus, show_error
from pi_dynn.cli.watch_options import (
    AT_LEAST_S,
    WatchCommand,
    network_options,
    place_options,
    record_options,
    told_options,
    when_options,
)
from pi_dynn.cli.watch_service import check_password, described_service, run_service
from pi_dynn.text import counted

if TYPE_CHECKING:
    from pi_dynn.classify.home_assistant import HomeAssistant
    from pi_dynn.classify.planned import PlannedThresholds
    from pi_dynn.classify.run import Plan
    from pi_dynn.classify.service import Supervisor
    from pi_dynn.classify.swap import SwappingSession
    from pi_dynn.classify.unsure import UnsurePictures
    from pi_dynn.classify.watcher import Watcher, WatchSettings
    from pi_dynn.clock import Clock
    from pi_dynn.data.region import Region
    from pi_dynn.runtime.manifest import Manifest
    from pi_dynn.runtime.session import Session


@click.command(cls=WatchCommand)
@click.argument("source")
@when_options
@told_options
@place_options
@network_options
@record_options
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
    unsure = [
        name
        for name in ("unsure_below", "quota_mb")
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if unsure and given["save_unsure"] is None:
        raise click.UsageError(f"--{unsure[0].replace('_', '-')} is about --save-unsure DIR: give that, too")
    planning = {name: given[name] for name in ("calibration", "budget_ms", "budget_mj")}
    check_planning(planning, given["adaptive"], given["thresholds"], batch_size=1)
    if given["joules_per_day"] is not None and not any(planning.values()):
        raise click.UsageError("--joules-per-day moves along the curve of a record: give --calibration or a budget")
    if service is not None:
        from pi_dynn.data.watch_sources import without_password

        if dry_run and service != "install":
            raise click.UsageError("--dry-run prints what --service install would write: leave one of them out")
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
    from pi_dynn.board import usable_cores
    from pi_dynn.calibrate.records import check_bundle
    from pi_dynn.classify.mqtt import MqttPublisher, parse_broker
    from pi_dynn.classify.service import Supervisor
    from pi_dynn.classify.swap import SwappingSession
    from pi_dynn.classify.text import watch_line
    from pi_dynn.classify.watcher import Watcher
    from pi_dynn.clock import PerfClock
    from pi_dynn.data.watch_sources import open_feed
    from pi_dynn.power.estimate import model_of_this_board

    clock, publisher, home, plan = PerfClock(), None, None, None
    broker = None if mqtt is None else parse_broker(mqtt)
    settings, pictures, supervisor = _settings(**given), _pictures(**given), Supervisor(clock)

    def open_session(threads: int | None) -> "Session":
        session = replace(choice, threads=threads).open()
        session.resolve_thresholds(settings.thresholds)  # raises at once, not at the first frame
        if plan is not None:
            check_bundle(plan.record, session.bundle.sha256, "the calibration record")
        return session

    with ending_on_sigterm() as terminated, ExitStack() as stack:
        feed = stack.enter_context(open_feed(source, clock, _say))
        first = open_session(choice.threads)
        plan = chosen_plan(first, given["calibration"], given["budget_ms"], given["budget_mj"])
        session = SwappingSession(first, choice.bundle_file(), lambda: open_session(first.threads), clock, _say)
        if broker is not None:
            home = _device(source, broker.topic, session.manifest) if home_assistant else None
            publisher = stack.enter_context(MqttPublisher(broker, _say, home))
        watcher = Watcher(
            *(feed, session, settings, clock, _now, supervisor),
            pictures=pictures,
            publisher=publisher,
            home=home,
            planned=None if plan is None else _planned(plan, first.threads, clock, **given),
        )
        _say(f"watching {feed.name}  ({session.engine}, {counted(session.threads, 'thread')}); Ctrl-C ends")
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


def _planned(
    plan: "Plan", threads: int, clock: "Clock", *, adaptive: bool, joules_per_day: float | None, **given: Any
) -> "PlannedThresholds":
    """Thresholds by the plan, which move if that was asked for."""
    from pi_dynn.board import Board, usable_cores
    from pi_dynn.calibrate.allowance import EnergyAllowance
    from pi_dynn.classify.planned import PlannedThresholds, joules_per_cost
    from pi_dynn.classify.run import read_board_state
    from pi_dynn.evaluate.text import move_line
    from pi_dynn.power.estimate import model_of_this_board

    board, allowance = Board(), None
    if joules_per_day is not None:
        curve = [point for point in plan.record.curve if point.mean_cost <= plan.point.mean_cost] or [plan.point]
        share = min(1.0, threads / usable_cores())
        allowance = EnergyAllowance(curve, joules_per_day, joules_per_cost(plan.record, share, model_of_this_board()))
    return PlannedThresholds(
        plan,
        clock,
        board_state=(lambda: read_board_state(board, battery_percent)) if adaptive else None,
        allowance=allowance,
        on_move=lambda point: _say(f"Note: {move_line(point, plan.record.cost_unit)}"),
    )


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
    """SIGHUP, which `systemctl reload` sends, makes the session load its bundle anew.

    A terminal sends it, too, when it is closed, and then it ends the program as ever.
    """
    if sys.stdin is not None and sys.stdin.isatty():
        yield
        return
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

"""`pi-dynn watch`."""

import json
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from pi_dynn.cli.options import SessionChoice, accept_all_option, exit_options, session_options
from pi_dynn.cli.status import ExitStatus, show_error

if TYPE_CHECKING:
    from pi_dynn.clock import Clock
    from pi_dynn.data.frames import Frame
    from pi_dynn.errors import InputError
    from pi_dynn.records import Prediction


@click.command()
@click.argument("source")
@click.option("--every", "every_s", type=click.FloatRange(0.0), default=0.0, metavar="S", help="Seconds in between.")
@click.option("--count", "limit", type=click.IntRange(1), metavar="N", help="End after N frames.")
@click.option(
    "--mqtt",
    envvar="PI_DYNN_MQTT",
    metavar="URL",
    help="Publish to mqtt://host:port/topic instead; a password is better kept in PI_DYNN_MQTT.",
)
@click.option(
    "--deadline-ms", type=click.FloatRange(0.0), help="Answer at the next exit once this much time has passed."
)
@click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="Show the N likeliest classes.")
@exit_options
@accept_all_option
@session_options
def command(
    source: str,
    every_s: float,
    limit: int | None,
    mqtt: str | None,
    deadline_ms: float | None,
    top: int,
    thresholds: list[float] | float | None,
    choice: SessionChoice,
) -> int:
    """Classify what a camera, a video or a folder shows now, as JSON lines.

    SOURCE is `camera` or a number, /dev/video0, `picamera` for a camera module, rtsp:// or http:// for a stream,
    a video file, a folder that fills, or `fake`. Each time the newest frame is answered; those in between are
    dropped, never queued. A camera or broker that goes away is waited for. Ctrl-C or SIGTERM ends with a summary.

    \b
    Examples:
      pi-dynn watch camera --every 5
      pi-dynn watch incoming/ --mqtt mqtt://broker.local/garden/birds
    """
    from pi_dynn.classify.mqtt import MqttPublisher, parse_broker
    from pi_dynn.classify.run import Tally
    from pi_dynn.classify.text import watch_line
    from pi_dynn.classify.watch import frame_answers, paced_frames, watch_summary
    from pi_dynn.clock import PerfClock
    from pi_dynn.data.watch_sources import open_feed

    clock = PerfClock()
    publisher = None if mqtt is None else MqttPublisher(parse_broker(mqtt), _say)
    deadline_s = None if deadline_ms is None else deadline_ms / 1e3
    with ending_on_sigterm() as terminated:
        interrupted = False
        with ExitStack() as stack:
            feed = stack.enter_context(open_feed(source, clock, _say))
            if publisher is not None:
                stack.enter_context(publisher)
            session = choice.open()
            limits = session.resolve_thresholds(thresholds)
            frames = paced_frames(feed, clock, every_s, limit)
            tally = Tally(session, clock)
            answers = tally.count(frame_answers(session, frames, limits, deadline_s, top))
            _say(f"watching {feed.name}  ({session.engine}, {session.threads} threads); Ctrl-C ends")
            try:
                show(answers, clock, click.echo if publisher is None else publisher.publish)
            except KeyboardInterrupt:
                interrupted = True
        summary = watch_summary(tally.summary(interrupted), feed)
        if publisher is not None:  # after the last message was waited for
            summary = replace(summary, published=publisher.published, unpublished=publisher.unpublished)
        click.echo(json.dumps({"summary": summary.to_dict()}))
        _say(watch_line(summary))
    if terminated:  # a supervisor takes anything but 0 for a crash; frames that failed are in the summary
        return ExitStatus.OK
    if interrupted:
        return ExitStatus.INTERRUPTED
    return ExitStatus.ERROR if summary.failed else ExitStatus.OK


def show(
    answers: Iterable[tuple["Frame", "Prediction | InputError"]], clock: "Clock", write: Callable[[str], object]
) -> None:
    """Hand every answer to `write` as a line of JSON; errors go to stderr, too."""
    from pi_dynn.classify.text import frame_object
    from pi_dynn.errors import InputError

    for frame, answer in answers:
        age_s = (clock.now_ns() - frame.taken_ns) * 1e-9
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = frame_object(frame.name, frame.number, now, age_s, answer)
        if isinstance(answer, InputError):
            show_error(line["error"])
        write(json.dumps(line))


@contextmanager
def ending_on_sigterm() -> Iterator[list[int]]:
    """SIGTERM, which a supervisor sends, ends the block as Ctrl-C does; the list yielded is then not empty."""
    received: list[int] = []

    def end(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    click.echo(text, err=True)

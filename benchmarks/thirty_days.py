#!/usr/bin/env python3
"""A watch for thirty days at one frame a second on a clock that is not waited for, with all that goes wrong meanwhile.

    python benchmarks/thirty_days.py --days 30

The loop, the feed, motion detection, agreement, Home Assistant's messages, unsure pictures and the change of bundles
are those of `pi-dynn watch`. Stand-ins are the camera, the network, the broker with Home Assistant behind it, and
systemd, which starts the watch again 30 s after it died (virtual_world.py). Every day the camera is unplugged and
hangs, broker, Home Assistant and watch are killed, the disk is full, the calendar is set, a bundle is exchanged for a
good or a bad one, and frames are corrupt.

Silence is the time between two messages that Home Assistant hears, less the time in which camera, broker, Home
Assistant or watch were away, and the time each is allowed to come back in. Whenever it hears an answer it has to know
both sensors, and that the watch is there. The exit status is 1 if a silence was longer than stated, if Home Assistant
did not know what it has to, if systemd would have killed the watch, or if a frame was not counted once.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest import mock

import click
import numpy as np
from virtual_world import (
    LABELS,
    RESTART_S,
    SLOW_ANSWER_S,
    START_S,
    TOPIC,
    AtOnce,
    Killed,
    StandIn,
    SteppedFeed,
    Systemd,
    VirtualClient,
    World,
)

from pi_dynn.classify import unsure
from pi_dynn.classify.home_assistant import HomeAssistant
from pi_dynn.classify.mqtt import Broker, MqttPublisher
from pi_dynn.classify.service import WATCHDOG_S
from pi_dynn.classify.unsure import UnsurePictures
from pi_dynn.classify.watcher import Watcher, WatchSettings
from pi_dynn.clock import FakeClock
from pi_dynn.errors import CameraUnavailable
from pi_dynn.files import write_atomically
from pi_dynn.text import table

DAY_S, AT_LEAST_S = 86_400, 60.0
LONGEST_SILENCE_S = AT_LEAST_S + 2 * SLOW_ANSWER_S  # where a label changes, the second answer is told


def live(world: World, end_s: float) -> None:
    """One life of the watch, until it is killed, gives up or the time is over; its counts are added to the world's.

    Raises: CameraUnavailable, BrokerUnavailable where the real one ends.
    """
    path = world.folder / "bundle"

    def open_session() -> StandIn:
        return StandIn(path.read_text(), world.clock)

    first = StandIn("good", world.clock)
    pictures = UnsurePictures(world.folder / "unsure", 300_000, world.now)
    home = HomeAssistant(TOPIC, "virtual", LABELS, "stand-in")
    feed = SteppedFeed(world)
    session = AtOnce(first, path, open_session, world.clock)
    publisher = MqttPublisher(Broker("virtual", 1883, TOPIC), announcer=home)
    publisher.__enter__()
    settings = WatchSettings(at_least_s=AT_LEAST_S, agree=2)
    watcher = Watcher(
        *(feed, session, settings, world.clock, world.now, Systemd(world)),
        **{"pictures": pictures, "publisher": publisher, "home": home},
    )
    world.alive = True
    try:
        for _ in watcher.lines():
            if world.now_s >= end_s:
                break
    finally:
        world.alive = False
        world.client.die()
        world.client = None
        summary = watcher.summary()
        for name in ("frames", "images", "failed", "skipped", "dropped", "held_back", "reconnects", "swaps"):
            world.counts[name] += getattr(summary, name)
        for name in ("refused_swaps", "unsure_saved", "unsure_lost", "published", "unpublished"):
            world.counts[name] += getattr(summary, name)
        world.counts["uncounted"] += abs(
            summary.frames - summary.images - summary.failed - summary.skipped - summary.dropped
        )


def scheduled(days: int, random: np.random.Generator) -> Iterator[tuple[float, str]]:
    """What goes wrong in so many days, and when."""
    often = {"unplug": 3, "hang": 4, "broker_dies": 3, "hub_dies": 2, "disk_fills": 1, "calendar_is_set": 2}
    for what, times in (often | {"bundle_changes": 2, "dies": 2}).items():
        for day in range(days):
            yield from ((day * DAY_S + random.uniform(600, DAY_S - 600), what) for _ in range(times))


def silence_s(world: World) -> float:
    """The longest time without a message, and without an outage that explains it."""
    longest, outages = 0.0, sorted(world.outages)
    for begin, end in [*world.silences, (world.heard_s, world.now_s)]:
        for start, stop in outages:
            if stop > begin and start < end:
                longest, begin = max(longest, start - begin), stop
        longest = max(longest, end - begin)
    return longest


def simulate(days: int, seed: int, folder: Path) -> World:
    """The world after so many days."""
    random = np.random.default_rng(seed)
    world = World(FakeClock(), folder, random)
    world.events = sorted(scheduled(days, random), reverse=True)
    (folder / "bundle").write_text("good")

    def write(path: Path, write) -> None:
        if world.disk_full:
            raise OSError(28, "No space left on device")
        write_atomically(path, write)

    with ExitStack() as stack:
        stack.enter_context(mock.patch("paho.mqtt.client.Client", partial(VirtualClient, world)))
        stack.enter_context(mock.patch.object(unsure, "write_atomically", write))
        while world.now_s < days * DAY_S:
            try:
                live(world, days * DAY_S)
            except (Killed, CameraUnavailable, ConnectionError):
                world.counts["restarts"] += 1
            if world.now_s < days * DAY_S:
                for _ in range(int(RESTART_S + START_S)):
                    world.clock.advance(1.0)
                    world.happen()
    return world


@click.command()
@click.option("--days", default=30, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(days: int, seed: int) -> None:
    """Print what came of so many days."""
    with tempfile.TemporaryDirectory() as folder:
        world = simulate(days, seed, Path(folder))
    rows = [(name.replace("_", " "), str(number)) for name, number in sorted(world.counts.items())]
    click.echo(table(("what", "times"), rows))
    silence = silence_s(world)
    click.echo(f"longest silence {silence:.1f} s, stated {LONGEST_SILENCE_S:.0f} s, outages and returns left out")
    click.echo(f"{world.counts['unknown']} answers of which Home Assistant did not know the sensors")
    click.echo(f"longest time without a sign of life {world.longest_beat_s:.1f} s, systemd waits {WATCHDOG_S} s")
    click.echo(f"{world.counts['uncounted']} frames neither answered nor skipped nor counted as dropped")
    wrong = world.counts["uncounted"] + world.counts["unknown"]
    raise SystemExit(silence > LONGEST_SILENCE_S or world.longest_beat_s > WATCHDOG_S or wrong > 0)


if __name__ == "__main__":
    main()

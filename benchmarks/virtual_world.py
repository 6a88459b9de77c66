"""Stand-ins for what is outside of a watch, on a clock that is not waited for."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from pi_dynn.classify.mqtt import LONGEST_BACK_OFF_S
from pi_dynn.classify.service import Supervisor
from pi_dynn.classify.swap import SwappingSession
from pi_dynn.clock import FakeClock
from pi_dynn.data.frames import STALLED_S, CaptureFeed
from pi_dynn.errors import BundleError, CameraUnavailable, InputError
from pi_dynn.records import Prediction

RESTART_S, START_S = 30.0, 5.0  # of a watch that died
SLOW_ANSWER_S = 2.5  # one of a few; frames that come meanwhile are dropped
CAMERA_BACK_S = 31.0  # the longest back-off of a camera, and a frame
LABELS = ["beach", "forest", "harbor"]
TOPIC = "garden/birds"


class Killed(Exception):
    """The process is killed: nothing of it runs any more."""


class Hang(Exception):
    """Takes the place of a call to the driver that does not return."""


@dataclass
class World:
    """What is outside of the watch, at the time of `clock`."""

    clock: FakeClock
    folder: Path
    random: np.random.Generator
    camera_there: bool = True
    disk_full: bool = False
    broker_up: bool = True
    hub_up: bool = True
    calendar_s: float = 0.0
    hang: bool = False
    kill: bool = False
    alive: bool = False
    client: "VirtualClient | None" = None
    capture: "VirtualCapture | None" = None
    retained: dict[str, str] = field(default_factory=dict)
    hub: dict[str, str] = field(default_factory=dict)  # what Home Assistant knows, by topic
    heard_s: float = 0.0
    silences: list[tuple[float, float]] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)  # to come, the last one first
    counts: Counter = field(default_factory=Counter)
    longest_beat_s: float = 0.0

    @property
    def now_s(self) -> float:
        return self.clock.now_ns() * 1e-9

    def now(self) -> datetime:
        return datetime(2027, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=self.now_s + self.calendar_s)

    def tell_hub(self, topic: str, payload: str) -> None:
        """A message to Home Assistant."""
        if self.hub_up:
            self.hub[topic] = payload
            if topic == TOPIC:
                known = sum(name.endswith("/config") for name in self.hub)
                self.counts["unknown"] += known != 2 or self.hub.get(f"{TOPIC}/availability") != "online"
                self.silences.append((self.heard_s, self.now_s))
                self.heard_s = self.now_s

    def publish(self, topic: str, payload: str, retain: bool) -> None:
        """A message to the broker."""
        if retain:
            self.retained[topic] = payload
        self.tell_hub(topic, payload)

    def hub_starts(self) -> None:
        """Home Assistant subscribes, hears what is retained, and says that it has started."""
        self.hub.clear()
        if self.hub_up and self.broker_up:
            self.hub |= self.retained
            if self.client is not None and self.client.connected:
                self.client.on_message(self.client, None, SimpleNamespace(payload=b"online"))

    def happen(self) -> None:
        """Let everything happen that is due. Raises: Killed."""
        while self.events and self.events[-1][0] <= self.now_s:
            _, what = self.events.pop()
            self.counts[what] += 1
            getattr(self, f"_{what}")()
        if self.client is not None:
            self.client.reconnect()
        if self.kill:
            self.kill = False
            raise Killed

    def later(self, seconds: float, what: str) -> None:
        """Add an event."""
        self.events.append((self.now_s + seconds, what))
        self.events.sort(reverse=True)

    def away(self, seconds: float, allowed_s: float) -> None:
        """Note an outage that begins now, with the time that is allowed to come back in."""
        self.outages.append((self.now_s, self.now_s + seconds + allowed_s))

    def _unplug(self) -> None:
        seconds = float(self.random.choice([self.random.uniform(5, 120), self.random.uniform(300, 2400)]))
        self.camera_there = False
        # After ten minutes systemd starts the watch again and again until the camera is there.
        self.away(seconds, CAMERA_BACK_S + (RESTART_S + START_S if seconds > 500 else 0.0))
        self.later(seconds, "plug_in")

    def _plug_in(self) -> None:
        self.camera_there = True

    def _hang(self) -> None:
        self.hang = True
        self.away(0.0, STALLED_S + CAMERA_BACK_S)

    def _broker_dies(self) -> None:
        seconds = self.random.uniform(2, 300)
        self.broker_up = False
        if self.random.random() < 0.5:
            self.retained.clear()  # one that keeps nothing on its disk
        if self.client is not None:
            self.client.lose()
        self.away(seconds, LONGEST_BACK_OFF_S + 1.0)
        self.later(seconds, "broker_back")

    def _broker_back(self) -> None:
        self.broker_up = True
        self.hub_starts()

    def _hub_dies(self) -> None:
        self.hub_up = False
        self.hub.clear()
        seconds = self.random.uniform(10, 600)
        self.away(seconds, 1.0)
        self.later(seconds, "hub_back")

    def _hub_back(self) -> None:
        self.hub_up = True
        self.hub_starts()

    def _disk_fills(self) -> None:
        self.disk_full = True
        self.later(3600, "disk_freed")

    def _disk_freed(self) -> None:
        self.disk_full = False
        for path in (self.folder / "unsure").glob("*.jpg"):  # somebody labels them
            path.unlink()

    def _calendar_is_set(self) -> None:
        self.calendar_s += self.random.uniform(-7200, 7200)

    def _bundle_changes(self) -> None:
        good = self.random.random() < 0.7
        (self.folder / "bundle").write_text(f"{'good' if good else 'bad'} {self.random.integers(10**9)}")

    def _dies(self) -> None:
        self.kill = self.alive
        self.away(0.0, RESTART_S + START_S + 2.0)


class VirtualCapture:
    """The camera: one frame a second, of a scene that changes every few minutes, with noise."""

    scenes = np.random.default_rng(0).integers(30, 220, (8, 3, 4, 3)).repeat(8, 1).repeat(8, 2)
    noise = np.random.default_rng(1).normal(0.0, 1.0, (64, 24, 32, 3))

    def __init__(self, world: World) -> None:
        if not world.camera_there:
            raise CameraUnavailable("virtual: no such camera")
        self._world, self.second = world, int(world.now_s)
        world.capture = self

    def grab(self) -> bool:
        world = self._world
        self.second += 1
        world.clock.advance(max(0.0, self.second - world.now_s))
        world.happen()
        if world.hang:
            world.hang = False
            raise Hang
        return world.camera_there

    def retrieve(self) -> np.ndarray:
        second = self.second
        if second % 4999 == 0:
            raise InputError("virtual: a damaged frame")
        scene = self.scenes[second // 431 * 5 % 8]
        return (scene + self.noise[second % 64]).astype(np.uint8)

    def release(self) -> None: ...


class SteppedFeed(CaptureFeed):
    """A CaptureFeed whose thread is this one: it gets on while somebody waits."""

    def __init__(self, world: World) -> None:
        super().__init__("virtual", partial(VirtualCapture, world), world.clock, say=lambda text: None)
        self._world, self._reader, self._next_ns, self._deadline_ns = world, self._steps(), 0, 0
        self._got_on()

    def _is_current(self) -> bool:
        return True

    def take(self, timeout_s=None):
        while self._reader is not None and self._next_ns <= self._clock.now_ns():
            if self._world.capture.second + 1 > self._world.now_s:
                break
            self._step()  # what came while nobody waited is dropped
        self._deadline_ns = self._clock.now_ns() + round(timeout_s * 1e9)
        return super().take(0.0)

    def rest(self, duration_s: float) -> None:
        self._deadline_ns = self._clock.now_ns() + round(duration_s * 1e9)
        self._begin()

    def _begin(self) -> None:
        while self._frame is None and (now_ns := self._clock.now_ns()) < self._deadline_ns:
            if self._reader is None and self._hangs():
                self._reader, self._next_ns = self._steps(), now_ns
            due_ns = self._deadline_ns if self._reader is None else min(self._next_ns, self._deadline_ns)
            self._clock.advance(max(0, due_ns - now_ns) * 1e-9)
            self._world.happen()
            if self._reader is None or self._next_ns > due_ns:
                return
            self._step()

    def _step(self) -> None:
        try:
            delay_s = next(self._reader)
        except Hang:
            self._reader = None
        else:
            self._next_ns = self._clock.now_ns() + round(delay_s * 1e9)


class VirtualClient:
    """As much of paho's client as is used; it is connected to the world's broker."""

    def __init__(self, world: World, *_: object) -> None:
        self._world, self.connected, self._tries, self._next_s, self._will = world, False, 0, 0.0, None
        self.username_pw_set = self.reconnect_delay_set = self.max_queued_messages_set = self.subscribe = (
            lambda *_, **__: None
        )
        self.loop_stop = lambda: None
        world.client = self

    def will_set(self, topic, payload, qos, retain):
        self._will = (topic, payload, retain)

    def connect(self, *_: object) -> None:
        if not self._world.broker_up:
            raise ConnectionRefusedError("virtual")

    def loop_start(self) -> None:
        self.connected = True
        self.on_connect(self, None, None, SimpleNamespace(is_failure=False), None)

    def is_connected(self) -> bool:
        return self.connected

    def publish(self, topic, payload, qos, retain):
        self._world.publish(topic, payload, retain)
        self.on_publish(self, None, 0, None, None)
        return SimpleNamespace(rc=0, wait_for_publish=lambda timeout: None)

    def disconnect(self) -> None:
        self.connected = False

    def lose(self) -> None:
        """The broker is gone."""
        if self.connected:
            self.connected, self._tries, self._next_s = False, 0, self._world.now_s + 1.0
            self.on_disconnect(self, None, None, SimpleNamespace(is_failure=True), None)

    def die(self) -> None:
        """The process is gone, and the broker publishes its will."""
        if self.connected and self._world.broker_up:
            self._world.publish(*self._will)

    def reconnect(self) -> None:
        """What paho's thread does while it is not connected."""
        if self.connected or self._world.now_s < self._next_s:
            return
        if self._world.broker_up:
            self.loop_start()
        self._tries += 1
        self._next_s = self._world.now_s + min(2.0**self._tries, LONGEST_BACK_OFF_S)


class StandIn:
    """A session that answers by the picture's colour: at once, or now and then after some seconds."""

    exits, engine, threads = 1, "stand-in", 1

    def __init__(self, content: str, clock: FakeClock) -> None:
        self._clock = clock
        if content.startswith("bad"):
            raise BundleError("damaged")
        self.manifest = SimpleNamespace(labels=LABELS, model="stand-in", blocks=[1, 2])
        self.bundle = SimpleNamespace(sha256=content, manifest=self.manifest)

    def preprocess(self, image) -> torch.Tensor:
        return torch.zeros(3, 1, 1)

    def forward_scored(self, x) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        return [torch.zeros(1, 3)] * 2, [torch.ones(1)] * 2

    def classify(self, image, *_: object) -> Prediction:
        red = int(image[0, 0, 0])
        self._clock.advance(SLOW_ANSWER_S if red % 11 == 0 else 0.02)
        probability = 0.3 if red % 5 == 0 else 0.9
        label = LABELS[red // 8 % 3]
        return Prediction(label, 0, probability, 0, 1, 0.9, 0.02, [(label, probability)])


class AtOnce(SwappingSession):
    """Bundles are loaded in this thread."""

    def _begin(self, image) -> None:
        self._load(image)
        self._take_over()


class Systemd(Supervisor):
    """Notes the longest time without a sign of life."""

    def __init__(self, world: World) -> None:
        super().__init__(world.clock)
        self.there, self._world, self._last_s = True, world, world.now_s

    def _notify(self, text: str) -> None:
        if text.startswith("WATCHDOG=1"):
            self._world.longest_beat_s = max(self._world.longest_beat_s, self._world.now_s - self._last_s)
            self._last_s = self._world.now_s

    def stopping(self) -> None: ...

"""A watch put together: frames of a feed through motion detection, network and agreement to whoever is told."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pi_dynn.classify.home_assistant import HomeAssistant
from pi_dynn.classify.mqtt import MqttPublisher
from pi_dynn.classify.planned import PlannedThresholds
from pi_dynn.classify.records import WatchSummary
from pi_dynn.classify.run import Tally
from pi_dynn.classify.service import Supervisor
from pi_dynn.classify.swap import SwappingSession
from pi_dynn.classify.text import frame_object
from pi_dynn.classify.unsure import UnsurePictures
from pi_dynn.classify.watch import (
    Agreement,
    cropped_frames,
    frame_answers,
    moved_frames,
    paced_frames,
    saved_energy,
    saving_unsure,
    watch_summary,
)
from pi_dynn.clock import Clock
from pi_dynn.data.frames import Frame, FrameFeed
from pi_dynn.data.motion import MotionDetector
from pi_dynn.data.region import Region
from pi_dynn.errors import CameraUnavailable, InputError
from pi_dynn.power.estimate import PowerModel
from pi_dynn.records import Prediction
from pi_dynn.runtime.session import Session
from pi_dynn.text import counted

AWAY_S = 10.0  # a camera that was lost for longer is told to be away
GIVE_UP_S = 600.0  # under a supervisor, which starts the program anew: some drivers need that


@dataclass(frozen=True)
class WatchSettings:
    """Which frames are answered and how, and which answers are told. `at_least_s` is None without motion detection."""

    every_s: float = 0.0
    limit: int | None = None
    at_least_s: float | None = None
    region: Region | None = None
    agree: int = 1
    thresholds: list[float] | float | None = None
    deadline_s: float | None = None
    top: int = 1


class Watcher:
    """Answers the frames of a feed, tells the answers, and gives signs of life.

    `now` is the calendar's date and time. Answers are published if there is a `publisher`, and for Home Assistant if
    there is a `home`. `planned` thresholds take the place of those in the settings.
    """

    def __init__(
        self,
        feed: FrameFeed,
        session: SwappingSession,
        settings: WatchSettings,
        clock: Clock,
        now: Callable[[], datetime],
        supervisor: Supervisor,
        *,
        pictures: UnsurePictures | None = None,
        publisher: MqttPublisher | None = None,
        home: HomeAssistant | None = None,
        planned: PlannedThresholds | None = None,
    ) -> None:
        self._feed, self._session, self._settings, self._clock, self._now = feed, session, settings, clock, now
        self._supervisor, self._pictures, self._publisher, self._home = supervisor, pictures, publisher, home
        self._planned = planned
        self._detector = None if settings.at_least_s is None else MotionDetector(settings.at_least_s)
        self._agreement = Agreement(settings.agree)
        self._tally = Tally(session, clock)
        session.on_swap = self._swapped

    def lines(self) -> Iterator[dict[str, Any]]:
        """The answers that are told, as JSON objects; they have been published by then."""
        for frame, answer in self._answers():
            age_s = (self._clock.now_ns() - frame.taken_ns) * 1e-9
            time = self._now().isoformat(timespec="milliseconds")
            line = frame_object(frame.name, frame.number, time, age_s, answer)
            self._tell_presence()  # before the first answer after the camera was away
            if self._publisher is not None:
                self._publisher.publish(json.dumps(line))
                if self._home is not None and isinstance(answer, Prediction):
                    self._publisher.send(*self._home.answered(line, answer))
            yield line

    def _answers(self) -> Iterator[tuple[Frame, Prediction | InputError]]:
        settings = self._settings
        frames = paced_frames(self._feed, self._clock, settings.every_s, settings.limit, self.beat)
        if settings.region is not None:
            frames = cropped_frames(frames, settings.region)
        if self._planned is not None:  # before motion: the detector is to compare with what was answered
            frames = self._planned.affordable(frames)
        if self._detector is not None:
            frames = moved_frames(frames, self._detector, self._agreement.pending)
        limits = settings.thresholds if self._planned is None else self._planned.thresholds
        answers = frame_answers(self._session, frames, limits, settings.deadline_s, settings.top)
        answers = self._tally.count(answers)
        if self._planned is not None:
            answers = self._planned.paid(answers)
        if self._pictures is not None:
            answers = saving_unsure(answers, self._pictures)
        return self._agreement.agreed(answers)

    def beat(self) -> None:
        """Look after what goes on beside the answers.

        Raises: CameraUnavailable under a supervisor, if the camera was lost for GIVE_UP_S.
        """
        lost_s = self._feed.lost_s
        self._session.poll()
        self._supervisor.beat(f"{counted(self._feed.seen, 'frame')}; {'the camera is lost' if lost_s else 'watching'}")
        self._tell_presence()
        if self._supervisor.there and lost_s > GIVE_UP_S:
            raise CameraUnavailable(f"{self._feed.name}: lost for {GIVE_UP_S / 60:.0f} minutes; to be started anew")

    def _tell_presence(self) -> None:
        if self._publisher is not None and self._home is not None:
            self._publisher.send(*self._home.available(self._feed.lost_s < AWAY_S))

    def _swapped(self, session: Session) -> None:
        if self._publisher is not None and self._home is not None:
            self._home.describe(session.manifest.labels, session.manifest.model)
            self._publisher.greet()

    def summary(self, interrupted: bool = False, model: PowerModel | None = None, cores: int = 1) -> WatchSummary:
        """All counts so far; what skipping saves is estimated by a power model of a board with so many cores."""
        summary = replace(
            watch_summary(self._tally.summary(interrupted), self._feed, self._detector, self._agreement),
            swaps=self._session.swaps,
            refused_swaps=self._session.refused,
        )
        if self._pictures is not None:
            summary = replace(summary, unsure_saved=self._pictures.saved, unsure_lost=self._pictures.lost)
        if self._publisher is not None:
            summary = replace(summary, published=self._publisher.published, unpublished=self._publisher.unpublished)
        if self._detector is not None and model is not None:
            share = min(1.0, summary.threads / cores)
            saved = saved_energy(summary.skipped, summary.mean_latency_s, share, model)
            summary = replace(summary, saved_energy=saved)
        if self._planned is not None and model is not None:
            summary = replace(summary, unpaid=self._planned.unpaid, spent_energy=self._planned.spent(model.scope))
        return summary

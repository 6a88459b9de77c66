"""Summaries of streams of answers."""

from dataclasses import dataclass

from pi_dynn.power.meter import ESTIMATED
from pi_dynn.records import Record


@dataclass(frozen=True)
class ClassifySummary(Record):
    """The summary of a `classify` run: counts, throughput over elapsed time, mean latency of the network."""

    KIND = "classify summary"

    images: int
    failed: int
    elapsed_s: float
    images_per_s: float
    mean_latency_s: float | None
    exit_counts: list[int]
    exit_blocks: list[int]
    engine: str
    threads: int
    bundle: str
    interrupted: bool


@dataclass(frozen=True)
class EnergyFigure(Record):
    """The net energy of answers that were given or spared: an estimate by a board's power model or a saved record."""

    net_j: float
    scope: str
    measured: bool = False
    meter: str = "estimate"
    meter_label: str = ESTIMATED


@dataclass(frozen=True)
class WatchSummary(ClassifySummary):
    """The summary of a `watch` run: a ClassifySummary and counts of frames.

    `frames` came from the source: `images` of them were answered, `failed` could not be, `skipped` did not move, and
    `dropped` were not used, because others came before an answer was due. `reconnects` counts how often a camera came
    back. `held_back` counts answers that were not told, because the next ones had another label. `unsure_saved` and
    `unsure_lost` count pictures, `published` and `unpublished` messages that a broker did or did not acknowledge; None
    where that was not asked for. `swaps` counts changes of the bundle, `refused_swaps` those that failed.
    """

    KIND = "watch summary"

    source: str
    frames: int
    dropped: int
    reconnects: int
    published: int | None = None
    unpublished: int | None = None
    skipped: int = 0
    held_back: int = 0
    saved_energy: EnergyFigure | None = None
    unsure_saved: int | None = None
    unsure_lost: int | None = None
    swaps: int = 0
    refused_swaps: int = 0
    unpaid: int = 0
    spent_energy: EnergyFigure | None = None

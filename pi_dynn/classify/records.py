"""Summaries of streams of answers."""

from dataclasses import dataclass

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
class WatchSummary(ClassifySummary):
    """The summary of a `watch` run: a ClassifySummary and counts of frames.

    `frames` came from the source, `dropped` of them were not used; `reconnects` counts how often a camera came
    back. `published` and `unpublished` count messages that a broker did or did not acknowledge, None without one.
    """

    KIND = "watch summary"

    source: str
    frames: int
    dropped: int
    reconnects: int
    published: int | None = None
    unpublished: int | None = None

"""What a stream of answers leaves behind."""

from dataclasses import dataclass

from pi_dynn.records import Record


@dataclass(frozen=True)
class ClassifySummary(Record):
    """The end of a `classify` run: counts, throughput over the wall clock, mean latency of the network."""

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
    """The end of a `watch`: a ClassifySummary, and what became of the frames.

    `frames` came from the source, `dropped` of them were passed over; `reconnects` counts how often a camera came
    back. `published` and `unpublished` count messages a broker did or did not acknowledge, None without one.
    """

    KIND = "watch summary"

    source: str
    frames: int
    dropped: int
    reconnects: int
    published: int | None = None
    unpublished: int | None = None

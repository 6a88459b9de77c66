"""What a watch leaves behind."""

from dataclasses import dataclass

from pi_dynn.records import ClassifySummary


@dataclass(frozen=True)
class WatchSummary(ClassifySummary):
    """The end of a `watch`: a ClassifySummary, and what became of the frames.

    `frames` came from the source, `dropped` of them were passed over; `reconnects` counts how often a camera came
    back. `published` and `unpublished` count messages a broker did or did not acknowledge, None without one.
    """

    source: str
    frames: int
    dropped: int
    reconnects: int
    published: int | None = None
    unpublished: int | None = None

"""The manifest of a bundle."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pi_dynn.calibrate.reject import Rejection
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import BundleError
from pi_dynn.records import Record
from pi_dynn.runtime.forms import FORM_NAMES, TORCHSCRIPT

INT8_STATIC = "int8-static"  # int8 with activation ranges calibrated on images
PRECISIONS = ("fp32", "int8", INT8_STATIC)
MOST_BLOCKS, MOST_CLASSES = 10_000, 100_000


@dataclass(frozen=True)
class Manifest(Record):
    """The JSON in a bundle: everything needed to use it, and its origin.

    `exit_blocks` are the blocks with an early exit after them; `thresholds` has one value for each, and the answer
    after the last block (`depth` - 1) has none. `macs` are the multiply-adds to leave at each exit, the last answer
    included, with all exit checks before it. `self_test` holds the logits of each exit for the self-test picture of
    noise, if the network cannot compute in floats (convolutions in int8-static). `rejection` says when an image is
    none of the classes.
    """

    KIND = "manifest"

    model: str
    arguments: dict[str, Any]
    labels: list[str]
    preprocess: Preprocess
    depth: int
    exit_blocks: list[int]
    thresholds: list[float]
    macs: list[int]
    precision: str
    packed_engine: str | None
    weights_sha256: str
    pi_dynn_version: str
    torch_version: str
    notes: dict[str, Any] = field(default_factory=dict)
    format: str = TORCHSCRIPT  # or another of FORM_NAMES
    self_test: list[list[float]] = field(default_factory=list)
    rejection: Rejection | None = None

    @property
    def has_floats(self) -> bool:
        """Whether the network can also compute in floats, as the reference of the engines' self-test."""
        return not self.self_test

    def __post_init__(self) -> None:
        """Raises: BundleError for values that no bundle has, or counts that do not fit together."""
        for complaint in self._complaints():
            raise BundleError(f"the manifest says {complaint}; export the bundle again")
        exits = len(self.exit_blocks)
        if len(self.thresholds) != exits or len(self.macs) != exits + 1:
            raise BundleError(
                f"the manifest has {exits} exits, {len(self.thresholds)} thresholds and {len(self.macs)} costs; "
                "export the bundle again"
            )
        means = None if self.rejection is None else np.array(self.rejection.class_means, dtype=object)
        if means is not None and means.shape != (exits + 1, len(self.labels), len(self.labels)):
            raise BundleError(f"the class means do not fit {exits} exits and {len(self.labels)} classes")

    def _complaints(self) -> Iterator[str]:
        """What cannot be, in words."""
        if self.format not in FORM_NAMES or self.precision not in PRECISIONS:
            yield f"{self.format!r} in {self.precision!r}, which is neither form nor precision of a bundle"
        if not 1 <= self.depth <= MOST_BLOCKS:
            yield f"{self.depth} blocks, which is not from 1 to {MOST_BLOCKS}"
        if [-1, *self.exit_blocks, self.depth - 1] != sorted({-1, *self.exit_blocks, self.depth - 1}):
            yield f"exits after the blocks {self.exit_blocks}, which do not rise from 0 to below {self.depth - 1}"
        if not all(map(math.isfinite, self.thresholds)):
            yield f"thresholds {self.thresholds}, which are not all finite"
        if self.macs != sorted(self.macs) or self.macs and self.macs[0] < 0:
            yield f"multiply-adds {self.macs}, which do not rise from exit to exit"
        if not 1 <= len(self.labels) <= MOST_CLASSES:
            yield f"{len(self.labels)} classes, which is not from 1 to {MOST_CLASSES}"
        if self.self_test and [len(logits) for logits in self.self_test] != [len(self.labels)] * len(self.macs):
            yield "answers of a self-test that do not fit its exits and classes"
        if self.rejection is not None and not math.isfinite(self.rejection.limit):
            yield f"a limit of {self.rejection.limit} for what is none of the classes"

    @property
    def blocks(self) -> list[int]:
        """The block before each exit, the last answer included."""
        return [*self.exit_blocks, self.depth - 1]

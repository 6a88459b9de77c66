"""The manifest of a bundle."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pi_dynn.calibrate.reject import Rejection
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import BundleError
from pi_dynn.records import Record

INT8_STATIC = "int8-static"  # int8 with activation ranges calibrated on images


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
    format: str = "torchscript"  # or "onnx"
    self_test: list[list[float]] = field(default_factory=list)
    rejection: Rejection | None = None

    @property
    def has_floats(self) -> bool:
        """Whether the network can also compute in floats, as the reference of the engines' self-test."""
        return not self.self_test

    def __post_init__(self) -> None:
        """Raises: BundleError for counts that do not fit together."""
        exits = len(self.exit_blocks)
        if len(self.thresholds) != exits or len(self.macs) != exits + 1:
            raise BundleError(
                f"the manifest has {exits} exits, {len(self.thresholds)} thresholds and {len(self.macs)} costs; "
                "export the bundle again"
            )
        means = None if self.rejection is None else np.array(self.rejection.class_means, dtype=object)
        if means is not None and means.shape != (exits + 1, len(self.labels), len(self.labels)):
            raise BundleError(f"the class means do not fit {exits} exits and {len(self.labels)} classes")

    @property
    def blocks(self) -> list[int]:
        """The block before each exit, the last answer included."""
        return [*self.exit_blocks, self.depth - 1]

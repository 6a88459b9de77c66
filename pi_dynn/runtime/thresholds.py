"""The enabled exits of a bundle and their thresholds."""

import math
from collections.abc import Sequence

from pi_dynn.errors import InputError
from pi_dynn.records import NEVER
from pi_dynn.runtime.manifest import Manifest
from pi_dynn.text import counted


def enabled_exits(manifest: Manifest, blocks: Sequence[int] | None) -> list[bool]:
    """Whether each exit is enabled: those after `blocks`, or all for None. Raises: InputError for unknown blocks."""
    enabled = [blocks is None or block in blocks for block in manifest.exit_blocks]
    if blocks is not None and sum(enabled) < len(set(blocks)):
        raise InputError(f"exits={list(blocks)}: the bundle has exits after blocks {manifest.exit_blocks}")
    return enabled


def resolve_thresholds(
    manifest: Manifest, enabled: Sequence[bool], thresholds: Sequence[float] | float | None
) -> list[float]:
    """One threshold per early exit: the given ones, one for all, or the bundle's own for None.

    An exit that is not enabled gets one that no score reaches.

    Raises: InputError for a wrong count or a value that is negative or not a number.
    """
    if thresholds is None:
        thresholds = manifest.thresholds
    if isinstance(thresholds, (int, float)):
        thresholds = [float(thresholds)] * len(enabled)
    values = [float(value) for value in thresholds]
    if len(values) != len(enabled):
        raise InputError(
            f"got {counted(len(values), 'threshold')} for {counted(len(enabled), 'exit')}: give one, or one each"
        )
    for value in values:
        if math.isnan(value) or value < 0.0:
            raise InputError(f"threshold {value} is not in 0..1 (above 1 an exit is never taken)")
    return [value if on else NEVER for value, on in zip(values, enabled, strict=True)]

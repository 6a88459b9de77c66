"""Exit tables: where samples leave and with what accuracy, from the outputs of every exit.

Shape letters: K exits including the last answer, N samples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pi_dynn.calibrate.records import ExitRow
from pi_dynn.errors import CalibrationError

Values = Sequence[float] | NDArray[np.float64]


def leave_at(scores: NDArray[np.float64], thresholds: Values) -> NDArray[np.int64]:
    """The exit index (N,) of each sample: the first whose score reaches its threshold, else the last.

    `scores` (K, N) has the last answer in its last row, which is ignored; `thresholds` has K - 1 values.

    Raises: CalibrationError for counts that do not fit or scores that are not numbers.
    """
    scores = np.asarray(scores)
    if len(thresholds) != len(scores) - 1:
        raise CalibrationError(f"{len(scores) - 1} early exits need as many thresholds, got {len(thresholds)}")
    if np.isnan(scores[:-1]).any():
        raise CalibrationError("some exit scores are NaN: the network or its inputs are broken")
    sure = np.ones(scores.shape, dtype=bool)
    sure[:-1] = scores[:-1] >= np.asarray(thresholds, dtype=np.float64).reshape(-1, 1)
    exits: NDArray[np.int64] = sure.argmax(axis=0)
    return exits


def exit_table(
    exits: NDArray[np.int64], right: NDArray[np.bool_], blocks: Sequence[int], macs: Sequence[int]
) -> list[ExitRow]:
    """One row per exit, from the exits samples leave at (N,) and whether each exit is right about them (K, N)."""
    rows = []
    for k, (block, cost) in enumerate(zip(blocks, macs, strict=True)):
        here = exits == k
        count = int(here.sum())
        accuracy = float(right[k, here].mean()) if count else None
        rows.append(ExitRow(k, int(block), count, count / len(exits), accuracy, int(cost)))
    return rows


def mean_cost(exits: NDArray[np.int64], macs: Values) -> float:
    """Mean multiply-adds over samples that leave at `exits` (N,), costs per exit (K,)."""
    return float(np.asarray(macs, dtype=np.float64)[exits].mean())

"""The exit rule of Dynamic-Network-Inference with its sign error: images leave where an exit is *unsure*.

Source: shounaknaik/Dynamic-Network-Inference, code.py. Its text says that an image leaves where its entropy is below
the threshold; its program compares the other way round.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from pi_dynn.calibrate.outcomes import ExitOutcomes, operating_point
from pi_dynn.calibrate.percentile import DESIRED
from pi_dynn.calibrate.records import OperatingPoint
from pi_dynn.exits.scores import EntropyGate


class InvertedEntropyGate(nn.Module):
    """A gate whose sigmoid is H / ln C, the entropy's share of its greatest value. Shapes: (B, C) -> (B,)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.gate = EntropyGate(num_classes)

    def forward(self, logits: Tensor) -> Tensor:
        return -self.gate(logits)


def inverted_thresholds(entropies: np.ndarray, right: np.ndarray, desired: float) -> list[float]:
    """The published thresholds on the entropies (K - 1, N) of each exit, in nats, sign and all.

    The program lets an image leave where its entropy is *greater* than the threshold, looks at every exit by itself,
    and a slip of precedence counts its index from the wrong end. For use as a score that must be reached, the
    threshold is the next greater number.
    """
    thresholds = []
    for entropy, hits in zip(entropies, right, strict=True):
        cutoff = 0.0 if hits.mean() > desired else np.sort(entropy)[int(1 - desired * len(entropy))]
        thresholds.append(float(np.nextafter(cutoff, np.inf)))
    return thresholds


def inverted_points(outcomes: ExitOutcomes, grid: Sequence[float] = DESIRED) -> list[OperatingPoint]:
    """One operating point for each desired accuracy, where the scores of `outcomes` are entropies in nats."""
    points = []
    for desired in grid:
        thresholds = inverted_thresholds(outcomes.scores[:-1], outcomes.right[:-1], desired)
        points.append(operating_point(outcomes, thresholds, desired=float(desired)))
    return points

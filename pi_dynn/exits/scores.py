"""Gates without parameters: maximum probability, margin or entropy of an exit's logits.

Each returns the logit of a score in 0..1, so that its sigmoid is the score. Shapes: logits (B, C) -> (B,).

Source of the entropy gate: BranchyNet (arXiv 1709.01686): samples leave if the entropy in nats is below a cut-off.
Here a higher score means a surer exit, so the entropy H of C classes becomes 1 - H / ln C.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn

_SMALLEST = 1e-12  # keeps logarithms finite for a margin of 0 or 1


class MaxProbabilityGate(nn.Module):
    """The logit of the probability of the likeliest class."""

    def forward(self, logits: Tensor) -> Tensor:
        exact = logits.double()
        top, place = exact.max(dim=1)
        others = exact.scatter(1, place.unsqueeze(1), float("-inf"))
        return top - torch.logsumexp(others, dim=1)


class MarginGate(nn.Module):
    """The logit of the probability of the likeliest class less that of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.smallest = _SMALLEST

    def forward(self, logits: Tensor) -> Tensor:
        top = torch.topk(torch.softmax(logits.double(), dim=1), 2, dim=1)[0]  # (B, 2)
        lead = top[:, 0] - top[:, 1]
        return lead.clamp(min=self.smallest).log() - (1.0 - lead).clamp(min=self.smallest).log()


class EntropyGate(nn.Module):
    """The logit of 1 - H / ln C.

    Shapes: logits (B, C) -> (B,).
    """

    greatest: Final[float]
    smallest: Final[float]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.greatest = math.log(num_classes)
        self.smallest = 1e-12  # keeps both logarithms finite for an entropy of 0 or ln C

    def forward(self, logits: Tensor) -> Tensor:
        log_p = torch.log_softmax(logits, dim=1)
        entropy = -(log_p.exp() * log_p).sum(1)
        certainty = (self.greatest - entropy).clamp(min=self.smallest)
        return certainty.log() - entropy.clamp(min=self.smallest).log()  # the logit of certainty / greatest


def score_at(entropy: float, num_classes: int) -> float:
    """The score of an answer with `entropy` nats; as a threshold it is equivalent to that entropy as cut-off.

    >>> score_at(0.0, 10)
    1.0
    >>> round(score_at(0.5, 10), 4)
    0.7829
    """
    return 1.0 - entropy / math.log(num_classes)

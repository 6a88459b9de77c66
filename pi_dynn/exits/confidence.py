"""Gates without parameters that judge an exit by its logits alone: the likeliest class, or its lead.

Each returns the logit of a score in 0..1, so that its sigmoid is the score. (Entropy has a file of its own.)
Shapes: logits (B, C) -> (B,) float64.
"""

import torch
from torch import Tensor, nn

_SMALLEST = 1e-12  # keeps logarithms finite where an exit is certain, or torn between two classes


class MaxProbabilityGate(nn.Module):
    """The sigmoid of what it returns is the probability of the likeliest class."""

    def forward(self, logits: Tensor) -> Tensor:
        exact = logits.double()
        top, place = exact.max(dim=1)
        others = exact.scatter(1, place.unsqueeze(1), float("-inf"))
        return top - torch.logsumexp(others, dim=1)


class MarginGate(nn.Module):
    """The sigmoid of what it returns is the probability of the likeliest class less that of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.smallest = _SMALLEST

    def forward(self, logits: Tensor) -> Tensor:
        top = torch.topk(torch.softmax(logits.double(), dim=1), 2, dim=1)[0]  # (B, 2)
        lead = top[:, 0] - top[:, 1]
        return lead.clamp(min=self.smallest).log() - (1.0 - lead).clamp(min=self.smallest).log()

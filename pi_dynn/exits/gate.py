"""The learned uncertainty gate: how sure is an exit of its own answer?

Source: JEI-DNN (arXiv 2310.09163). Natural logarithms throughout.
"""

import torch
from torch import Tensor, nn


def uncertainty_features(logits: Tensor) -> Tensor:
    """The four numbers a gate looks at: `[p1, H(p), p1 - p2, H(q)]`.

    `p = softmax(z)`, `p1 >= p2` its two largest entries and `q = p^2 / sum(p^2) = softmax(2z)`, a
    sharpened copy whose entropy moves later than that of `p`.

    Shapes: logits (B, classes) -> (B, 4).
    """
    # Through log_softmax, for training: the slope of `torch.special.entr` is infinite where a probability
    # underflows to zero, and turns every gradient to NaN as soon as the network is very sure.
    log_both = torch.log_softmax(torch.stack((logits, 2.0 * logits), dim=1), dim=-1)  # (B, 2, classes)
    both = log_both.exp()
    entropy = -(both * log_both).sum(dim=-1)  # (B, 2)
    top = torch.topk(both[:, 0], 2, dim=-1).values  # (B, 2)
    return torch.stack((top[:, 0], entropy[:, 0], top[:, 0] - top[:, 1], entropy[:, 1]), dim=1)


class LearnableUncertaintyGate(nn.Module):
    """A linear layer over the four uncertainty features; its sigmoid is the gate.

    `forward` returns the value *before* the sigmoid, which is what a loss wants; an exit is taken
    where `sigmoid(forward(logits)) >= threshold`.

    Shapes: logits (B, classes) -> (B,).
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, logits: Tensor) -> Tensor:
        return self.linear(uncertainty_features(logits)).squeeze(1)

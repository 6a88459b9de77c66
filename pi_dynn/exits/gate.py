"""The learned uncertainty gate, which predicts whether the answer of an exit is right.

Source: JEI-DNN (arXiv 2310.09163). Natural logarithms throughout.
"""

import torch
from torch import Tensor, nn


def uncertainty_features(logits: Tensor) -> Tensor:
    """The four inputs of a gate: `[p1, H(p), p1 - p2, H(q)]`.

    `p = softmax(z)`, `p1 >= p2` its two largest entries and `q = p^2 / sum(p^2) = softmax(2z)`, a
    sharpened copy of `p`.

    Shapes: logits (B, classes) -> (B, 4).
    """
    # With log_softmax, for training: the gradient of `torch.special.entr` is infinite where a probability
    # underflows to zero, and every gradient becomes NaN.
    log_both = torch.log_softmax(torch.stack((logits, 2.0 * logits), dim=1), dim=-1)  # (B, 2, classes)
    both = log_both.exp()
    entropy = -(both * log_both).sum(dim=-1)  # (B, 2)
    top = torch.topk(both[:, 0], 2, dim=-1).values  # (B, 2)
    return torch.stack((top[:, 0], entropy[:, 0], top[:, 0] - top[:, 1], entropy[:, 1]), dim=1)


class LearnableUncertaintyGate(nn.Module):
    """A linear layer over the four uncertainty features; its sigmoid is the gate score.

    `forward` returns the value *before* the sigmoid, as the loss needs it; a sample leaves if
    `sigmoid(forward(logits)) >= threshold`.

    Shapes: logits (B, classes) -> (B,).
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, logits: Tensor) -> Tensor:
        return self.linear(uncertainty_features(logits)).squeeze(1)

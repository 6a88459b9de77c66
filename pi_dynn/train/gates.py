"""Gates fitted on images the network was not trained on."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pi_dynn.exits.gate import LearnableUncertaintyGate, uncertainty_features

RIDGE = 1e-3  # keeps the five parameters finite where an exit is right about every image


def harmless(logits: Tensor, labels: Tensor) -> Tensor:
    """Where leaving costs nothing: the exit is right, or the last answer is wrong too.

    Shapes: logits (K, N, classes) of all exits, the last answer last; labels (N,) -> bool (K - 1, N).
    """
    right = logits.argmax(-1) == labels
    return right[:-1] | ~right[-1]


def fit_gate(gate: LearnableUncertaintyGate, logits: Tensor, target: Tensor) -> None:
    """Fit a gate in place, so that its sigmoid is the probability of `target` given the exit's logits.

    A logistic regression on the four uncertainty features. Shapes: logits (N, classes), target (N,) bool.
    """
    features, wanted = uncertainty_features(logits.detach()), target.float()
    optimizer = torch.optim.LBFGS(gate.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = gate.linear(features).squeeze(1)
        penalty = RIDGE * gate.linear.weight.square().sum()
        total = F.binary_cross_entropy_with_logits(value, wanted) + penalty
        total.backward()
        return total

    optimizer.step(loss)


def fit_gates(model, logits: Tensor, labels: Tensor) -> None:
    """Fit every gate of `model`, in place, from the logits (K, N, classes) of all its exits on held-out images."""
    for gate, exit_logits, target in zip(model.gates, logits[:-1], harmless(logits, labels), strict=True):
        fit_gate(gate, exit_logits, target)

"""Temperatures folded into heads: honest probabilities at no cost, and exits where they were."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pi_dynn.deploy.network import EarlyExitNetwork
from pi_dynn.errors import ModelError


class ScaledGate(nn.Module):
    """A gate that judges logits as they were before their division by `temperature`."""

    def __init__(self, gate: nn.Module, temperature: float) -> None:
        super().__init__()
        self.gate = gate
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def forward(self, logits: Tensor) -> Tensor:
        return self.gate(logits * self.temperature)


def fold_temperatures(network: EarlyExitNetwork, temperatures: Sequence[float]) -> None:
    """Divide the logits of every exit, the last answer included, by its temperature (K + 1), in place.

    A gate judges the logits it was trained on, so it multiplies by the temperature again: scores, and with them
    the exits taken at given thresholds, stay as they were.

    Raises: ModelError for a wrong count, a temperature that is not positive, or heads of another kind.
    """
    heads = [*network.heads, network.last_head]
    if len(temperatures) != len(heads) or not all(0.0 < value < float("inf") for value in temperatures):
        raise ModelError(f"{len(heads)} answers need as many positive temperatures, got {list(temperatures)}")
    layers = [_linear_of(head) for head in heads]
    if None in layers:
        raise ModelError("temperatures can be folded only into heads that end in a linear layer")
    with torch.no_grad():
        for layer, temperature in zip(layers, temperatures, strict=True):
            layer.weight.div_(temperature)
            layer.bias.div_(temperature)
        for k, temperature in enumerate(temperatures[:-1]):  # the last answer has no gate
            network.gates[k] = _rescaled(network.gates[k], temperature)


def _rescaled(gate: nn.Module, temperature: float) -> nn.Module:
    if isinstance(getattr(gate, "powers", None), Tensor):  # the fused gate multiplies its logits anyway
        gate.powers.mul_(temperature)
        return gate
    return ScaledGate(gate, temperature)


def _linear_of(head: nn.Module) -> nn.Module | None:
    """The part of a head in whose weight and bias its logits are linear: the head itself, or its last layer."""
    for part in (head, *reversed(list(head.children()))):
        if all(isinstance(getattr(part, name, None), Tensor) for name in ("weight", "bias")):
            return part
        if part is not head:
            return _linear_of(part) if list(part.children()) else None
    return None

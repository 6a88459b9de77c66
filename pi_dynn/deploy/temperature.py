"""Temperatures folded into heads: honest probabilities at no cost, and exits where they were."""

from collections.abc import Sequence

import torch
from torch import nn

from pi_dynn.deploy.gate import FusedGate
from pi_dynn.deploy.network import EarlyExitNetwork
from pi_dynn.errors import ModelError


def fold_temperatures(network: EarlyExitNetwork, temperatures: Sequence[float]) -> None:
    """Divide the logits of every exit, the last answer included, by its temperature (K + 1), in place.

    A gate judges the logits it was trained on, so it multiplies by the temperature again: scores, and with them
    the exits taken at given thresholds, stay as they were.

    Raises: ModelError for a wrong count, a temperature that is not positive, or heads or gates of another kind.
    """
    heads = [*network.heads, network.last_head]
    if len(temperatures) != len(heads) or not all(0.0 < value < float("inf") for value in temperatures):
        raise ModelError(f"{len(heads)} answers need as many positive temperatures, got {list(temperatures)}")
    if not all(_is_linear(head) for head in heads) or not all(isinstance(gate, FusedGate) for gate in network.gates):
        raise ModelError("temperatures can be folded into linear heads with learned gates only")
    with torch.no_grad():
        for head, temperature in zip(heads, temperatures, strict=True):
            head.weight.div_(temperature)
            head.bias.div_(temperature)
        for gate, temperature in zip(network.gates, temperatures, strict=False):  # the last answer has no gate
            gate.powers.mul_(temperature)


def _is_linear(head: nn.Module) -> bool:
    """Whether logits are linear in the head's own weight and bias."""
    return isinstance(getattr(head, "weight", None), torch.Tensor) and isinstance(
        getattr(head, "bias", None), torch.Tensor
    )

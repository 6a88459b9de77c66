"""Losses of heads and gates on a frozen backbone.

Shape letters: G exits before the final answer, B batch. Exits are numbered l = 1..G in the formulas.

Source: JEI-DNN (arXiv 2310.09163).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_POSITIVE_WEIGHT = 5.0


def cross_entropies(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy of every exit and sample: logits (B, classes) per exit, labels (B,) -> (exits, B)."""
    return torch.stack([F.cross_entropy(z, labels, reduction="none") for z in logits])


def warmup_loss(ce: Tensor) -> Tensor:
    """Sum over the exits of (G + 1 - l) times their mean cross-entropy; ce (G, B).

    The final answer's own term is left out: it is frozen, so it has no gradient.
    """
    G = len(ce)
    weights = torch.arange(G, 0, -1, dtype=ce.dtype, device=ce.device)
    return (weights * ce.mean(1)).sum()


def best_exit(ce: Tensor, costs: Tensor, trade_off: float) -> Tensor:
    """The exit (B,) each sample should take: the least cross-entropy plus `trade_off` times cost.

    Shapes: ce (G + 1, B), the final answer last; costs (G + 1,), as shares of the final answer's.
    """
    return (ce + trade_off * costs[:, None]).argmin(0)


def gate_targets(best: Tensor, gates: int) -> Tensor:
    """What every gate should say, (G, B) bool: open from a sample's best exit on, closed before it."""
    return torch.arange(gates, device=best.device)[:, None] >= best[None, :]


def positive_weights(positives: Tensor, samples: int) -> Tensor:
    """Weight (G,) of the open targets of every gate: closed ones over open ones, at most 5.

    `positives` (G,) are the counts of open targets among `samples` held-out images.
    """
    counts = positives.double()
    return ((samples - counts) / counts.clamp_min(0.1)).clamp_max(MOST_POSITIVE_WEIGHT).float()


def gate_loss(gate_logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean binary cross-entropy of the gates, open targets weighted. Shapes: (G, B), (G, B), (G,)."""
    return F.binary_cross_entropy_with_logits(gate_logits, targets.to(gate_logits.dtype), pos_weight=weights[:, None])


def leaving_probabilities(gates: Tensor) -> Tensor:
    """How likely a sample leaves at every exit, from gate values (G, B).

    p_l = max(0, min(g_l, 1 - sum of g_j over j < l)).
    """
    before = gates.cumsum(0) - gates
    return torch.minimum(gates, 1 - before).clamp_min(0)


def weighted_classifier_loss(ce: Tensor, gates: Tensor) -> Tensor:
    """Mean over exits and samples of p_l * CE_l, brought back to the size of the plain loss. Shapes: (G, B) both.

    Heads learn most from the samples that are to leave at them. The factor that keeps each sample's sum is a
    number, not a part of the graph: with a gradient through it the weights would cancel, as they do in the
    published code, and plain cross-entropy would be left.
    """
    p = leaving_probabilities(gates.detach())
    weighted = p * ce
    ratio = ce.sum(0) / weighted.sum(0).clamp_min(1e-12)  # 0 below the line: no exit wants the sample
    return (weighted * ratio.detach()).mean()

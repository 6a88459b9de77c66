"""Training of exits on a frozen backbone: heads first, then gates and heads alternately, on cached features.

Shape letters: G exits before the final answer, B batch, N held-out images.

Source: JEI-DNN (arXiv 2310.09163).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pi_dynn.calibrate.outcomes import leave_at
from pi_dynn.train.engine import Stage
from pi_dynn.train.features import ExitFeatures, exit_heads, head_logits, regroup

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
    """Target of every gate, (G, B) bool: True from a sample's best exit on, False before it."""
    return torch.arange(gates, device=best.device)[:, None] >= best[None, :]


def positive_weights(positives: Tensor, samples: int) -> Tensor:
    """Weight (G,) of the positive targets of every gate: negatives over positives, at most 5.

    `positives` (G,) are the counts of positive targets among `samples` held-out images.
    """
    counts = positives.double()
    return ((samples - counts) / counts.clamp_min(0.1)).clamp_max(MOST_POSITIVE_WEIGHT).float()


def gate_loss(gate_logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean binary cross-entropy of the gates, positive targets weighted. Shapes: (G, B), (G, B), (G,)."""
    return F.binary_cross_entropy_with_logits(gate_logits, targets.to(gate_logits.dtype), pos_weight=weights[:, None])


def leaving_probabilities(gates: Tensor) -> Tensor:
    """The probability that a sample leaves at each exit, from gate values (G, B).

    p_l = max(0, min(g_l, 1 - sum of g_j over j < l)).
    """
    before = gates.cumsum(0) - gates
    return torch.minimum(gates, 1 - before).clamp_min(0)


def weighted_classifier_loss(ce: Tensor, gates: Tensor) -> Tensor:
    """Mean over exits and samples of p_l * CE_l, rescaled to the size of the plain loss. Shapes: (G, B) both.

    Heads learn most from the samples that leave at them. The factor that keeps each sample's sum is detached: with a
    gradient through it the weights would cancel, as they do in the published code, and plain cross-entropy would
    remain.
    """
    p = leaving_probabilities(gates.detach())
    weighted = p * ce
    ratio = ce.sum(0) / weighted.sum(0).clamp_min(1e-12)  # denominator 0: the sample leaves at no exit
    return (weighted * ratio.detach()).mean()


class ExitStage(Stage):
    """The base of both phases: the network's heads on a batch of features, with a frozen backbone."""

    some_unused = True

    def __init__(self, model: nn.Module, held_out: ExitFeatures) -> None:
        super().__init__(model)
        self.heads, self.held_out = exit_heads(model), held_out
        model.requires_grad_(False)
        for exit_heads_ in self.heads:
            for head in exit_heads_:
                head.requires_grad_(True)

    def exit_logits(self, heads: list[list[nn.Module]], flat: tuple[Tensor, ...]) -> list[Tensor]:
        """Logits (B, classes) of every exit from the inputs of its heads."""
        return [head_logits(h, x) for h, x in zip(heads, regroup(flat, len(heads[0])), strict=True)]

    @torch.no_grad()
    def held_out_logits(self, model: nn.Module) -> tuple[list[Tensor], Tensor]:
        """Logits (N, classes) of every exit and of the final answer, and labels (N,), on the held-out images."""
        model.eval()
        device = next(model.parameters()).device
        labels, final, *inputs = (tensor.to(device) for tensor in self.held_out.flat())
        return [*self.exit_logits(exit_heads(model), tuple(inputs)), final], labels

    def accuracies(self, logits: list[Tensor], labels: Tensor) -> dict[str, float]:
        blocks = [*self.model.exit_blocks, self.model.depth - 1]
        right = [float((z.argmax(1) == labels).float().mean()) for z in logits]
        return {f"acc_{block}": value for block, value in zip(blocks, right, strict=True)}


class HeadWarmup(ExitStage):
    """Heads alone, early ones with larger weights. A head that stops improving is restored to its best and frozen."""

    watched = "mean_accuracy"

    def __init__(self, model: nn.Module, held_out: ExitFeatures, patience: int = 2) -> None:
        super().__init__(model, held_out)
        self.patience = patience
        self.best = [-1.0] * len(self.heads)
        self.stale = [0] * len(self.heads)
        self.best_weights = [self._weights(k) for k in range(len(self.heads))]

    def _weights(self, k: int) -> list[dict[str, Tensor]]:
        return [{key: value.clone() for key, value in head.state_dict().items()} for head in self.heads[k]]

    def forward(self, labels: Tensor, final: Tensor, *inputs: Tensor) -> Tensor:
        return warmup_loss(cross_entropies(self.exit_logits(self.heads, inputs), labels))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        logits, labels = self.held_out_logits(model)
        figures = self.accuracies(logits, labels)
        early = list(figures.values())[:-1]
        return {"mean_accuracy": sum(early) / len(early)} | figures

    def end_epoch(self, metrics: dict[str, float]) -> bool:
        for k, block in enumerate(self.model.exit_blocks):
            if self.stale[k] >= self.patience:
                continue
            if metrics[f"acc_{block}"] > self.best[k]:
                self.best[k], self.stale[k] = metrics[f"acc_{block}"], 0
                self.best_weights[k] = self._weights(k)
            else:
                self.stale[k] += 1
        self._freeze_stale()
        return all(stale >= self.patience for stale in self.stale)

    def _freeze_stale(self) -> None:
        for k, stale in enumerate(self.stale):
            if stale >= self.patience:
                self._restore(k)
                for head in self.heads[k]:
                    head.requires_grad_(False)

    def _restore(self, k: int) -> None:
        for head, weights in zip(self.heads[k], self.best_weights[k], strict=True):
            head.load_state_dict(weights)

    def restore_best(self) -> None:
        """Restore the best weights of every head."""
        for k in range(len(self.heads)):
            self._restore(k)

    def memory(self) -> dict:
        return {"best": self.best, "stale": self.stale, "best_weights": self.best_weights}

    def recall(self, memory: dict) -> None:
        self.best, self.stale, self.best_weights = memory["best"], memory["stale"], memory["best_weights"]
        self._freeze_stale()


class Bilevel(ExitStage):
    """Gates and heads alternately, `turn` batches each, gates first.

    A gate learns to let a sample leave at the exit with the least cross-entropy plus `trade_off` times cost, and at
    all later ones; a head learns most from the samples that its gate lets leave.
    """

    watched = "utility"  # minus what the gates are to minimise, with the exits that gates above one half take

    def __init__(
        self,
        model: nn.Module,
        held_out: ExitFeatures,
        costs: list[float],
        *,
        trade_off: float = 0.7,
        turn: int = 200,
        gates_only: bool = False,
    ) -> None:
        """`costs` (G + 1) are cumulative multiply-adds per exit, as shares of the final answer's."""
        super().__init__(model, held_out)
        model.gates.requires_grad_(True)
        self.trade_off, self.turn, self.gates_only = trade_off, turn, gates_only
        if gates_only:
            for exit_heads_ in self.heads:
                for head in exit_heads_:
                    head.requires_grad_(False)
        self.batch = 0
        self.register_buffer("costs", torch.tensor(costs, dtype=torch.float32), persistent=False)
        self.register_buffer("positive_weights", torch.ones(len(self.heads)), persistent=False)

    def begin_epoch(self, epoch: int) -> None:
        self.batch = 0

    def forward(self, labels: Tensor, final: Tensor, *inputs: Tensor) -> Tensor:
        gates_turn = self.gates_only or self.batch // self.turn % 2 == 0
        self.batch += 1
        if gates_turn:
            with torch.no_grad():
                logits = self.exit_logits(self.heads, inputs)
                best = best_exit(cross_entropies([*logits, final], labels), self.costs, self.trade_off)
            opinions = torch.stack([gate(z) for gate, z in zip(self.model.gates, logits, strict=True)])
            return gate_loss(opinions, gate_targets(best, len(logits)), self.positive_weights)
        logits = self.exit_logits(self.heads, inputs)
        return weighted_classifier_loss(cross_entropies(logits, labels), self.gate_values(self.model, logits))

    @staticmethod
    @torch.no_grad()
    def gate_values(model: nn.Module, logits: list[Tensor]) -> Tensor:
        """Gate values (G, B) of exits with these logits."""
        return torch.stack([torch.sigmoid(gate(z)) for gate, z in zip(model.gates, logits, strict=True)])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        logits, labels = self.held_out_logits(model)
        values = self.gate_values(model, logits[:-1])
        scores = torch.cat((values, torch.ones_like(values[:1]))).cpu().numpy()
        at = torch.from_numpy(leave_at(scores, np.full(len(values), 0.5))).to(labels.device)
        ce, samples = cross_entropies(logits, labels), torch.arange(len(labels), device=labels.device)
        costs = self.costs.to(labels.device)[at]
        right = torch.stack([z.argmax(1) == labels for z in logits])
        return {
            "utility": -float((ce[at, samples] + self.trade_off * costs).mean()),
            "gated_accuracy": float(right[at, samples].float().mean()),
            "mean_cost": float(costs.mean()),
        } | self.accuracies(logits, labels)

    def end_epoch(self, metrics: dict[str, float]) -> bool:
        logits, labels = self.held_out_logits(self.model)
        best = best_exit(cross_entropies(logits, labels), self.costs.to(labels.device), self.trade_off)
        positives = gate_targets(best, len(self.heads)).sum(1)
        self.positive_weights = positive_weights(positives, len(labels)).to(self.positive_weights.device)
        return False

    def memory(self) -> dict:
        return {"positive_weights": self.positive_weights}

    def recall(self, memory: dict) -> None:
        self.positive_weights = memory["positive_weights"].to(self.positive_weights.device)

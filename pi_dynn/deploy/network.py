"""The network a Pi runs: stages with an exit after each, decided per sample.

It is independent of the network's family: a stem, stages of tokens (or feature maps), heads and gates, which
`assemble` puts together.
Shape letters: B batch, K exits. Scores are gate values in 0..1; the last answer has the score 1.
"""

import copy
import math
from collections.abc import Callable
from itertools import chain, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pi_dynn.exits.gate import LearnableUncertaintyGate


class FusedGate(nn.Module):
    """A LearnableUncertaintyGate as one softmax, one entropy and two small products: (B, classes) -> (B,).

    With w on [p1, H(p), p1 - p2, H(q)]: p1*(w0 + w2) - p2*w2 is a product with the two largest entries, and
    w1*H(p) + w3*H(q) one with all entropy terms at once. Returns the value before the sigmoid.
    """

    def __init__(self, gate: LearnableUncertaintyGate, num_classes: int) -> None:
        super().__init__()
        w = gate.linear.weight.detach().float()[0]
        self.register_buffer("powers", torch.tensor([[1.0], [2.0]]))  # p and its sharpened copy q
        self.register_buffer("entropy_weight", w[[1, 3]].repeat_interleave(num_classes).contiguous())  # (2*classes,)
        self.register_buffer("top_weight", torch.stack((w[0] + w[2], -w[2])))  # (2,)
        self.register_buffer("bias", gate.linear.bias.detach().float().clone())  # (1,)

    def forward(self, logits: Tensor) -> Tensor:
        both = torch.softmax(logits.unsqueeze(1) * self.powers, dim=-1)  # (B, 2, classes)
        top = torch.topk(both[:, 0], 2, dim=-1)[0]  # (B, 2)
        value = torch.addmv(self.bias, torch.special.entr(both).flatten(1), self.entropy_weight)
        return torch.addmv(value, top, self.top_weight)


def deploy_gate(gate: nn.Module, num_classes: int) -> nn.Module:
    """The gate of an exit on the device: logits (B, classes) -> (B,), before the sigmoid."""
    return FusedGate(gate, num_classes) if isinstance(gate, LearnableUncertaintyGate) else copy.deepcopy(gate)


class ExitResult(NamedTuple):
    """The answer for one image."""

    logits: Tensor  # (1, classes)
    exit_index: int  # 0..K, K is the last answer
    score: float


class BatchResult(NamedTuple):
    """The answers for a batch, independent for each sample."""

    logits: Tensor  # (B, classes)
    exit_index: Tensor  # (B,) int64
    score: Tensor  # (B,)


class StageResult(NamedTuple):
    """The output of one stage: its features, and the answer of its exit."""

    features: Tensor
    logits: Tensor  # (B, classes)
    score: Tensor  # (B,)


def logistic(value: float) -> float:
    """The sigmoid of one number, without overflow: TorchScript runs it outside the tensor machinery."""
    if value >= 0.0:
        return 1.0 / (1.0 + math.exp(-value))
    grown = math.exp(value)
    return grown / (1.0 + grown)


class EarlyExitNetwork(nn.Module):
    """Runs stages in order until the score of an exit reaches its threshold.

    stages and heads have K + 1 entries, gates K: the last stage always answers.
    """

    def __init__(
        self, stem: nn.Module, stages: list[nn.Module], heads: list[nn.Module], gates: list[nn.Module]
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages[:-1])
        self.heads = nn.ModuleList(heads[:-1])
        self.gates = nn.ModuleList(gates)
        self.last_stage = stages[-1]
        self.last_head = heads[-1]
        self.exits = len(gates)

    def forward(self, x: Tensor, thresholds: list[float]) -> ExitResult:
        """Answer one image (1, 3, H, W) at the first exit whose score reaches its threshold (K of them)."""
        if x.shape[0] != 1:
            raise ValueError("forward answers one image at a time; use forward_batch for more")
        if len(thresholds) != self.exits:
            raise ValueError("give one threshold for each exit before the last")
        x = self.stem(x)
        # TorchScript: a ModuleList cannot be indexed by a variable, so zip runs along all three.
        for k, (stage, head, gate) in enumerate(zip(self.stages, self.heads, self.gates)):
            x = stage(x)
            logits = head(x)
            score = logistic(float(gate(logits)))
            if score >= thresholds[k]:
                return ExitResult(logits, k, score)
        return ExitResult(self.last_head(self.last_stage(x)), self.exits, 1.0)

    @torch.jit.export
    def forward_batch(self, x: Tensor, thresholds: list[float]) -> BatchResult:
        """Answer a batch (B, 3, H, W); samples that leave are dropped, so later stages get smaller."""
        if len(thresholds) != self.exits:
            raise ValueError("give one threshold for each exit before the last")
        B = x.shape[0]
        logits_parts: list[Tensor] = []
        score_parts: list[Tensor] = []
        index_parts: list[Tensor] = []
        order: list[Tensor] = []
        active = torch.arange(B, device=x.device)
        x = self.stem(x)
        for k, (stage, head, gate) in enumerate(zip(self.stages, self.heads, self.gates)):
            if active.shape[0] > 0:
                x = stage(x)
                logits = head(x)
                # float64 keeps the comparison with a threshold the same as for one image alone
                score = torch.sigmoid(gate(logits).double())
                leaves = score >= thresholds[k]
                order.append(active[leaves])
                logits_parts.append(logits[leaves])
                score_parts.append(score[leaves])
                index_parts.append(torch.full_like(active[leaves], k))
                stays = ~leaves
                active, x = active[stays], x[stays]
        if active.shape[0] > 0:
            logits = self.last_head(self.last_stage(x))
            order.append(active)
            logits_parts.append(logits)
            score_parts.append(torch.ones(logits.shape[0], dtype=torch.float64))
            index_parts.append(torch.full_like(active, self.exits))
        place = torch.argsort(torch.cat(order))
        return BatchResult(torch.cat(logits_parts)[place], torch.cat(index_parts)[place], torch.cat(score_parts)[place])

    @torch.jit.export
    def forward_all(self, x: Tensor) -> list[Tensor]:
        """Logits (B, classes) of every exit, the last answer included, without stopping early."""
        return self.forward_scored(x)[0]

    @torch.jit.export
    def forward_scored(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (B, classes) and scores (B,) of every exit, the last answer included."""
        all_logits: list[Tensor] = []
        all_scores: list[Tensor] = []
        x = self.stem(x)
        for stage, head, gate in zip(self.stages, self.heads, self.gates):
            x = stage(x)
            logits = head(x)
            all_logits.append(logits)
            all_scores.append(torch.sigmoid(gate(logits).double()))
        logits = self.last_head(self.last_stage(x))
        all_logits.append(logits)
        all_scores.append(torch.ones(logits.shape[0], dtype=torch.float64))
        return all_logits, all_scores

    @torch.jit.export
    def start(self, x: Tensor) -> Tensor:
        """The features that enter stage 0, for a caller that watches a deadline between stages."""
        return self.stem(x)

    @torch.jit.export
    def advance(self, features: Tensor, index: int) -> StageResult:
        """Run stage `index` (0..K) on the features the one before it left."""
        for k, (stage, head, gate) in enumerate(zip(self.stages, self.heads, self.gates)):
            if k == index:
                features = stage(features)
                logits = head(features)
                return StageResult(features, logits, torch.sigmoid(gate(logits).double()))
        features = self.last_stage(features)
        logits = self.last_head(features)
        return StageResult(features, logits, torch.ones(logits.shape[0], dtype=torch.float64))


def assemble(
    model: nn.Module,
    exits: list[int],
    stem: nn.Module,
    steps: list[list[nn.Module]],
    head: Callable[[int], nn.Module],
    last_head: nn.Module,
) -> EarlyExitNetwork:
    """Steps (one list of modules per block) grouped into the stages between the chosen exits."""
    bounds = [0, *(index + 1 for index in exits), model.depth]
    stages = [nn.Sequential(*chain.from_iterable(steps[start:stop])) for start, stop in pairwise(bounds)]
    trained = [list(model.exit_blocks).index(index) for index in exits]
    gates = [deploy_gate(model.gates[k], model.num_classes) for k in trained]
    return EarlyExitNetwork(stem, stages, [*(head(k) for k in trained), last_head], gates).eval()

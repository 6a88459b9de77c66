"""Heads alone: linear layers on what a frozen network makes of the images, computed once.

It takes seconds, is best where images are few, and is what fine-tuning starts from.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pi_dynn.models.chain import ChainNetwork
from pi_dynn.models.efficientnet_lite import ExpandedHead
from pi_dynn.train.engine import Stage

LABEL_SMOOTHING = 0.1
FEATURE_BATCH = 32


def all_heads(model: ChainNetwork) -> list[nn.Module]:
    """What answers from pooled features at every exit, and the linear layer of the last answer."""
    last = [module for module in model.chain().head.modules() if isinstance(module, nn.Linear)][-1]
    exits = (head.answer if isinstance(head, ExpandedHead) else head for head in model.intermediate_heads)
    return [*exits, last]


@torch.no_grad()
def head_inputs(model: ChainNetwork, x: Tensor, batch_size: int = FEATURE_BATCH) -> list[Tensor]:
    """What each head sees of normalised images x (N, 3, H, W): (N, C) of every exit and of the last answer."""
    model.eval()
    seen: list[list[Tensor]] = [[] for _ in all_heads(model)]
    hooks = [
        head.register_forward_pre_hook(lambda _, inputs, to=to: to.append(_pooled(inputs[0])))
        for head, to in zip(all_heads(model), seen, strict=True)
    ]
    try:
        for batch in x.split(batch_size):
            model.forward_exits(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(batches) for batches in seen]


def _pooled(x: Tensor) -> Tensor:
    """One vector per sample: the mean over positions, (B, C)."""
    return x.float().mean((2, 3)) if x.dim() == 4 else x.float()


class Heads(nn.Module):
    """The heads of a network by themselves: features, one (B, C) for each, to logits (B, classes) each."""

    def __init__(self, model: ChainNetwork) -> None:
        super().__init__()
        self.heads = nn.ModuleList(all_heads(model))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [head(x) for head, x in zip(self.heads, features, strict=True)]


class Probe(Stage):
    """All heads on features, none of which depends on another; judged by the accuracy of the last answer."""

    def __init__(self, model: ChainNetwork, held_out: tuple[list[Tensor], Tensor]) -> None:
        """`held_out` are features, (N, C) for each head, and labels (N,)."""
        super().__init__(Heads(model))
        self.held_out = held_out

    def forward(self, labels: Tensor, *features: Tensor) -> Tensor:
        answers = self.model(list(features))
        losses = [F.cross_entropy(answer, labels, label_smoothing=LABEL_SMOOTHING) for answer in answers]
        return torch.stack(losses).sum()

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        features, labels = self.held_out
        model.eval()
        logits = model(features)
        return {"accuracy": float((logits[-1].argmax(1) == labels).float().mean())}

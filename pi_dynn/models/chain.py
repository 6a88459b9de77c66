"""Networks that are a chain of blocks, each reading only the output of the one before, with exits after some.

Exit number k, in the order of the exit blocks, has the keys `intermediate_heads.{k}.*` and `gates.{k}.*`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pi_dynn.errors import ModelError
from pi_dynn.exits.gate import LearnableUncertaintyGate
from pi_dynn.exits.positions import resolve_exits
from pi_dynn.models.conv_norm import NormLinear


@dataclass(frozen=True)
class Chain:
    """A network as a sequence: a stem, the modules of every block, and the head."""

    stem: nn.Module
    blocks: list[list[nn.Module]]
    head: nn.Module


class ChainNetwork(nn.Module):
    """Base of the networks defined by their `chain`, from which `forward_exits` and the deploy form follow.

    Attributes: num_classes, image_size, depth (number of blocks), exit_blocks.
    """

    # TorchScript: an empty list gets its type from the class body, never from __init__.
    exit_blocks: list[int]
    best_exit_heads = "cls"  # the `exit_heads` to learn new classes with

    def __init__(self, num_classes: int, image_size: int, depth: int, exits: Sequence[int] | str | None) -> None:
        """Raises: ModelError for exits at impossible blocks."""
        super().__init__()
        self.num_classes, self.image_size, self.depth = num_classes, image_size, depth
        self.exit_blocks = resolve_exits(exits, depth)

    def chain(self) -> Chain:
        """The network's own modules in the order they run."""
        raise NotImplementedError

    def add_exits(self, widths: Sequence[int]) -> None:
        """Give every exit block a head and a gate; `widths` are the channels after each of the `depth` blocks."""
        if self.exit_blocks:
            self.intermediate_heads = nn.ModuleList(
                NormLinear(widths[block], self.num_classes) for block in self.exit_blocks
            )
            self.gates = nn.ModuleList(LearnableUncertaintyGate() for _ in self.exit_blocks)

    def exit_head(self, k: int) -> nn.Module:
        """The head of exit number `k`: features after its block -> logits (B, classes)."""
        return self.intermediate_heads[k]

    def start_exits(self) -> None:
        """Let exits begin with the network's own pretrained weights, where they can; here they cannot."""

    def forward_exits(self, x: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """Every exit's (block_index, logits (B, classes), gate (B,)); the final answer comes last, gate 1."""
        chain, answers = self.chain(), []
        x = chain.stem(x)
        for index, block in enumerate(chain.blocks):
            for module in block:
                x = module(x)
            if index in self.exit_blocks:
                k = self.exit_blocks.index(index)
                logits = self.exit_head(k)(x)
                answers.append((index, logits, torch.sigmoid(self.gates[k](logits))))
        logits = chain.head(x)
        return [*answers, (self.depth - 1, logits, torch.ones_like(logits[:, 0]))]


def check_pooled_exits(exit_heads: str) -> None:
    """Raise ModelError for exit heads that read tokens, which a network of feature maps does not have."""
    if exit_heads != "cls":
        raise ModelError(f'exit_heads={exit_heads!r} needs class tokens; this network pools its features: give "cls"')


def check_plain(name: str, distilled: bool = False, exit_heads: str = "cls", **unknown: object) -> None:
    """Raise ModelError for forms that only networks with tokens have, and for unknown arguments."""
    check_pooled_exits(exit_heads)
    if distilled:
        raise ModelError(f"{name} has no distilled form: leave out distilled=True")
    if unknown:  # `inverted`, say, in weights made by release 0.1
        raise ModelError(f"{name} takes no {', '.join(unknown)}: leave it out")

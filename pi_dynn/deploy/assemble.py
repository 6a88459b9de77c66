"""Blocks, heads and gates put together to the network a Pi runs."""

from collections.abc import Callable
from itertools import chain, pairwise

from torch import nn

from pi_dynn.deploy.gate import deploy_gate
from pi_dynn.deploy.network import EarlyExitNetwork


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
    trained = [model.exit_blocks.index(index) for index in exits]
    gates = [deploy_gate(model.gates[k], model.num_classes) for k in trained]
    return EarlyExitNetwork(stem, stages, [*(head(k) for k in trained), last_head], gates).eval()

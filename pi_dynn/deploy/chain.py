"""Any chain of blocks rewritten for deployment, in fp32: norms folded, heads merged, the rest as it was trained.

What is not folded here, a convolution with a norm of its own beside it, TorchScript folds when it freezes.
"""

import torch

from pi_dynn.deploy.fuse import fuse_norms
from pi_dynn.deploy.network import EarlyExitNetwork, assemble
from pi_dynn.errors import ModelError
from pi_dynn.models.chain import ChainNetwork

WORST_RELATIVE_ERROR = 1e-4  # folding only reorders float32 arithmetic; a mistake is off by far more


def deploy_chain(model: ChainNetwork, exits: list[int]) -> EarlyExitNetwork:
    """The deploy form of a chain with exits after the blocks `exits`, a subset of the trained ones.

    Raises: ModelError for a network in training mode, or if a folded answer is not that of `model`.
    """
    fused = fuse_norms(model)
    chain = fused.chain()
    network = assemble(model, exits, chain.stem, chain.blocks, fused.exit_head, chain.head)
    assert_parity(model, network, exits)
    return network


def assert_parity(model: ChainNetwork, network: EarlyExitNetwork, exits: list[int]) -> None:
    """Raise ModelError unless both give the same logits at every exit for a picture of noise."""
    size = model.image_size
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    blocks = [*exits, model.depth - 1]
    wanted = [logits for block, logits, _ in model.forward_exits(x) if block in blocks]
    for block, got, want in zip(blocks, network.forward_all(x), wanted, strict=True):
        error = float((got - want).norm() / want.norm())
        if not error <= WORST_RELATIVE_ERROR:  # NaN is no parity either
            raise ModelError(
                f"the folded network is off by {error:.1e} after block {block}: are its weights finite and trained?"
            )

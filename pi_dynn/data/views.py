"""The eight views of a picture that has no upright."""

import torch
from torch import Tensor


def turned_and_flipped(images: Tensor) -> Tensor:
    """The eight views of each square image, (N, 3, S, S) -> (8N, 3, S, S): view by view, each N in order."""
    turns = [torch.rot90(images, quarter, (-2, -1)) for quarter in range(4)]
    return torch.cat([*turns, *(turn.flip(-1) for turn in turns)])

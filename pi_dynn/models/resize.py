"""A GFNet checkpoint moved to another image size."""

from collections.abc import Mapping
from math import isqrt

import torch.nn.functional as F
from torch import Tensor

from pi_dynn.errors import CheckpointError


def resize_state_dict(state: Mapping[str, Tensor], image_size: int, new_image_size: int) -> dict[str, Tensor]:
    """Weights for `new_image_size` from those trained at `image_size`: bicubic, positions and filters.

    Source: the published fine-tuning script resizes `pos_embed` with align_corners=False and
    `complex_weight` with align_corners=True. Works for plain networks, isotropic or pyramid.

    Raises: CheckpointError for a distilled network: its filter grid mixes two extra tokens into rows
    that do not follow the image, so there is nothing spatial to resize.
    """
    if "cls_token" in state:
        raise CheckpointError(
            f"a distilled network cannot be resized from {image_size} to {new_image_size} px: its filters "
            "are not laid out like the image; train it at the new size, with the plain network as teacher"
        )
    if image_size == new_image_size:
        return dict(state)
    resized = {}
    for key, value in state.items():
        if key == "pos_embed":
            value = _resize_positions(value, image_size, new_image_size)
        elif key.endswith("complex_weight"):
            value = _resize_filter(value, image_size, new_image_size)
        resized[key] = value
    return resized


def _resize_positions(value: Tensor, old: int, new: int) -> Tensor:
    side = isqrt(value.shape[1])
    grid = value.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, C, side, side)
    target = side * new // old
    grid = F.interpolate(grid, size=(target, target), mode="bicubic", align_corners=False)
    return grid.flatten(2).transpose(1, 2).contiguous()  # (1, target*target, C)


def _resize_filter(value: Tensor, old: int, new: int) -> Tensor:
    h, w, C, _ = value.shape
    a = h * new // old
    planes = value.float().permute(3, 2, 0, 1).reshape(1, 2 * C, h, w)  # one plane per channel and part
    planes = F.interpolate(planes, size=(a, a // 2 + 1), mode="bicubic", align_corners=True)
    return planes.reshape(2, C, a, a // 2 + 1).permute(2, 3, 1, 0).contiguous()  # (a, a//2+1, C, 2)

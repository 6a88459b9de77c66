"""Fixed views of the packed images: student and teacher see the very same crop, turn and flip.

View k of an image is drawn once from a seed, so what the teacher says of it can be kept on disk. Rendering is one
affine resampling per batch, at whatever size the network at hand wants.

Shape letters: N images, S pixels of a stored image's side, R of the rendered one's.
"""

import zlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

AERIAL = ("aid", "rsscn7", "ucm_train")  # scenes seen from above have no upright: quarter turns as well
SMALLEST_CROP = 0.35  # share of the area


@dataclass(frozen=True)
class Views:
    """One view of every image of a set: centre and half side in [-1, 1] coordinates, quarter turns, flips."""

    centre: Tensor  # (N, 2), x and y
    half: Tensor  # (N, 2)
    turns: Tensor  # (N,) 0 to 3
    flips: Tensor  # (N,) bool

    def __getitem__(self, index: Tensor) -> "Views":
        return Views(self.centre[index], self.half[index], self.turns[index], self.flips[index])


def draw_views(name: str, count: int, view: int, seed: int, smallest: float = SMALLEST_CROP) -> Views:
    """The view number `view` of all `count` images of the set `name`: the same for the same arguments.

    A crop has at least the share `smallest` of the area.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {view} {seed}".encode()))
    area = torch.empty(count).uniform_(smallest, 1.0, generator=generator)
    stretch = torch.empty(count).uniform_(-0.2, 0.2, generator=generator).exp()
    half = torch.stack([(area * stretch).sqrt(), (area / stretch).sqrt()], 1).clamp(max=1.0)
    centre = (torch.rand(count, 2, generator=generator) * 2 - 1) * (1 - half)
    turns = torch.randint(4 if name in AERIAL else 1, (count,), generator=generator)
    return Views(centre, half, turns, torch.rand(count, generator=generator) < 0.5)


def whole_views(count: int) -> Views:
    """Every image whole and as it is, for measuring."""
    return Views(torch.zeros(count, 2), torch.ones(count, 2), torch.zeros(count).long(), torch.zeros(count).bool())


def affine(views: Views) -> Tensor:
    """Matrices (N, 2, 3) from rendered to stored coordinates: flip, turn, then crop."""
    angle = views.turns * (torch.pi / 2)
    cos, sin = angle.cos().round(), angle.sin().round()
    mirror = torch.where(views.flips, -1.0, 1.0)
    turn = torch.stack([torch.stack([cos * mirror, -sin], 1), torch.stack([sin * mirror, cos], 1)], 1)
    return torch.cat([turn * views.half[:, :, None], views.centre[:, :, None]], 2)


def render(pixels: Tensor, views: Views, size: int) -> Tensor:
    """uint8 (N, 3, S, S) to float views (N, 3, R, R) in 0..255, averaged first where they shrink by two or more."""
    x = pixels.float()
    while x.shape[-1] >= 2 * size:
        x = F.avg_pool2d(x, 2)
    grid = F.affine_grid(affine(views).to(x.device), [len(x), 3, size, size], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

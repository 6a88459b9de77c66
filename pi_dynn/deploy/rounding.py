"""Weights of convolutions rounded so that what they compute stays near, not the weights themselves.

Each weight that is rounded passes its error on to those not rounded yet, as the inputs' covariance says is best;
what is left of the mean goes into the bias. Filters of a bright, even input need it: the error of their sum would
be seen everywhere.
Source: GPTQ (arXiv 2210.17323), bias correction (arXiv 1906.04721).
Shape letters: G groups, O outputs of a group, D inputs of one output (channels of a group x kernel places).
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PLACES, IMAGES = 256, 32  # looked at: output places of an image, and images
DAMPING = 0.01  # of the mean variance, added to each: keeps the inverse of what hardly varies in bounds
LARGEST = 127  # of a signed weight
MOST_INPUTS = 1536  # of an output: beyond, errors average out, and passing them on takes minutes


@dataclass
class PatchMoments:
    """Mean and covariance of what a convolution multiplies its weights with, found while it runs."""

    count: int = 0
    images: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(()))  # (G, D), once it has seen a batch
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))  # (G, D, D)

    def look(self, conv: nn.Conv2d, inputs: tuple[Tensor], _: Tensor) -> None:
        """A forward hook: a sample of the patches of the first images."""
        for image in inputs[0][: max(0, IMAGES - self.images)]:
            patches = sampled_patches(conv, image)
            self.count += patches.shape[2]
            self.images += 1
            self.total = self.total + patches.sum(2)
            if patches.shape[1] <= MOST_INPUTS:
                self.squares = self.squares + patches @ patches.transpose(1, 2)

    def mean(self) -> Tensor:
        """(G, D)."""
        return self.total / self.count

    def covariance(self) -> Tensor:
        """(G, D, D); only for up to MOST_INPUTS."""
        mean = self.mean()
        return self.squares / self.count - mean[:, :, None] * mean[:, None, :]


def sampled_patches(conv: nn.Conv2d, image: Tensor) -> Tensor:
    """Inputs of `conv` at up to PLACES of its outputs for an image (C, H, W): (G, D, places), float64."""
    (down, right), (tall, wide) = conv.stride, conv.kernel_size
    down_pad, right_pad = _padding(conv)
    image = F.pad(image.double(), (*right_pad, *down_pad))
    spans = [(side - 1) * step + 1 for side, step in zip(conv.kernel_size, conv.dilation, strict=True)]
    rows, columns = ((image.shape[1] - spans[0]) // down + 1, (image.shape[2] - spans[1]) // right + 1)
    chosen = torch.linspace(0, rows * columns - 1, min(PLACES, rows * columns)).round().long()
    y = (chosen // columns * down)[None] + (torch.arange(tall) * conv.dilation[0]).repeat_interleave(wide)[:, None]
    x = (chosen % columns * right)[None] + (torch.arange(wide) * conv.dilation[1]).repeat(tall)[:, None]
    return image[:, y, x].reshape(conv.groups, -1, len(chosen))


def _padding(conv: nn.Conv2d) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows above and below, and columns left and right, that `conv` adds to its input."""
    if isinstance(conv.padding, str):  # "same" may be uneven; torch keeps what it comes to
        left, right, top, bottom = conv._reversed_padding_repeated_twice
        return (top, bottom), (left, right)
    # Not what torch keeps: that is of the padding the layer was made with, and one folded into it is set later.
    rows, columns = conv.padding
    return (rows, rows), (columns, columns)


def rounded(conv: nn.Conv2d, scale: Tensor, moments: PatchMoments) -> tuple[Tensor, Tensor]:
    """Weights of `conv` as whole multiples of `scale` (channels out), and its bias, both to be used together."""
    mean = moments.mean()
    G, D = mean.shape
    wanted = conv.weight.double().reshape(G, -1, D)
    steps = scale.double().reshape(G, -1)
    if D <= MOST_INPUTS:
        weight = _rounded_in_turn(wanted, steps, moments.covariance())
    else:
        weight = (wanted / steps[:, :, None]).round().clamp(-LARGEST, LARGEST) * steps[:, :, None]
    shift = ((weight - wanted) @ mean[:, :, None]).flatten()
    bias = -shift if conv.bias is None else conv.bias.double() - shift
    return weight.reshape(conv.weight.shape).float(), bias.float()


def _rounded_in_turn(weight: Tensor, steps: Tensor, covariance: Tensor) -> Tensor:
    """`weight` (G, O, D) in multiples of `steps` (G, O), one input after the other, the most varying first."""
    diagonal = covariance.diagonal(dim1=1, dim2=2)  # a view: (G, D)
    order = diagonal.argsort(1, descending=True)  # (G, D)
    diagonal += DAMPING * diagonal.mean(1, keepdim=True) + 1e-12
    G, O, D = weight.shape
    covariance = covariance.gather(1, order[:, :, None].expand(G, D, D)).gather(2, order[:, None].expand(G, D, D))
    left = weight.gather(2, order[:, None].expand(G, O, D))
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(covariance)), upper=True)
    made = torch.empty_like(left)
    for d in range(D):
        own = left[:, :, d]
        made[:, :, d] = (own / steps).round().clamp(-LARGEST, LARGEST) * steps
        error = (own - made[:, :, d]) / factor[:, d, d, None]
        left[:, :, d + 1 :] -= error[:, :, None] * factor[:, d, None, d + 1 :]
    return made.scatter(2, order[:, None].expand(G, O, D), made.clone())

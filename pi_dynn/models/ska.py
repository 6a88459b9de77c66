"""Small-kernel aggregation: a convolution with a different, computed 3 x 3 kernel at every position.

The published kernel needs a GPU. This is the same in plain PyTorch: nine shifted views of the padded map,
multiplied and added in turn, where the usual way out, `unfold`, writes a copy nine times the map's size.
benchmarks/ska_forms.py times it against two other exact forms.

Source: LSNet (arXiv 2503.23135). Shape letters: B batch, C channels, G kernels of a position, H W feature map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SmallKernelAggregation(nn.Module):
    """y[c, h, w] = sum over the 3 x 3 neighbours of x[c, neighbour] * kernels[c mod G, neighbour, h, w].

    Shapes: x (B, C, H, W), kernels (B, G, 9, H, W) with C a multiple of G -> (B, C, H, W).
    """

    def forward(self, x: Tensor, kernels: Tensor) -> Tensor:
        B, C, H, W = x.shape
        G = kernels.shape[1]
        padded = F.pad(x, [1, 1, 1, 1]).view(B, C // G, G, H + 2, W + 2)
        taps = [tap.unsqueeze(1) for tap in kernels.unbind(2)]  # nine of (B, 1, G, H, W): Core ML ends at rank 5
        y = padded[:, :, :, :H, :W] * taps[0]
        for tap in range(1, 9):
            top, left = tap // 3, tap % 3
            y = torch.addcmul(y, padded[:, :, :, top : top + H, left : left + W], taps[tap])
        return y.view(B, C, H, W)

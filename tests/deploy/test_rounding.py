"""The patches that rounding of weights looks at are those the convolution multiplies."""

import pytest
import torch
from torch import nn

from pi_dynn.deploy.rounding import sampled_patches


@pytest.mark.parametrize("padding", [0, 2, (1, 3), "same"])
@pytest.mark.parametrize("groups", [1, 4])
def test_patches_times_weights_is_the_convolution(padding, groups):
    stride = 1 if padding == "same" else 2
    conv = nn.Conv2d(4, 8, (3, 5), stride, padding, groups=groups, bias=False).double()
    image = torch.randn(4, 7, 6, dtype=torch.float64)
    weight = conv.weight.reshape(groups, 8 // groups, -1)
    torch.testing.assert_close((weight @ sampled_patches(conv, image)).flatten(), conv(image[None]).flatten())


def test_padding_that_was_folded_in_later_counts():
    conv = nn.Conv2d(4, 4, 5, 2, groups=4, bias=False).double()
    conv.padding = (3, 3)
    image = torch.randn(4, 4, 4, dtype=torch.float64)
    patches = sampled_patches(conv, image)
    torch.testing.assert_close((conv.weight.reshape(4, 1, -1) @ patches).flatten(), conv(image[None]).flatten())

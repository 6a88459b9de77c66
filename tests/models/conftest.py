import pytest
import torch

from pi_dynn.models.gfnet import GFNet, GFNetSize
from pi_dynn.models.gfnet_pyramid import GFNetPyramid, PyramidSize


@pytest.fixture
def tiny():
    """Builds a narrow GFNet of 12 blocks for 32 px and 3 classes, evaluating; arguments as for create_model."""
    torch.manual_seed(0)

    def build(**kwargs):
        return GFNet(GFNetSize(16, 12), **({"num_classes": 3, "image_size": 32} | kwargs)).eval()

    return build


@pytest.fixture
def tiny_pyramid():
    """Builds a narrow GFNetPyramid of 5 blocks (1, 1, 2, 1) for 64 px and 3 classes, evaluating."""
    torch.manual_seed(0)
    size = PyramidSize((8, 16, 24, 32), (1, 1, 2, 1), layer_scale=1.0, drop_path=0.1)

    def build(**kwargs):
        return GFNetPyramid(size, **({"num_classes": 3, "image_size": 64} | kwargs)).eval()

    return build

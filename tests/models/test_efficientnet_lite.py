"""EfficientNet-Lite's exits that widen as the next block does."""

import pytest
import torch

from pi_dynn import count_macs, create_model
from pi_dynn.deploy.fuse import fuse_norms
from pi_dynn.errors import ModelError
from pi_dynn.models.conv_norm import NormLinear
from pi_dynn.models.efficientnet_lite import ExpandedHead
from tests.networks import with_trained_norms


def expanded(**form):
    torch.manual_seed(0)
    return create_model(
        "efficientnet_lite0", num_classes=5, image_size=64, exits=[2, 7, 12], exit_heads="expanded", **form
    )


@torch.no_grad()
def test_an_exit_that_widens_reads_what_the_next_block_makes_of_the_features():
    model = with_trained_norms(expanded())
    model.start_exits()
    x = torch.randn(2, 3, 64, 64)
    for module in (*model.chain().blocks[0], *model.chain().blocks[1], *model.chain().blocks[2]):
        x = module(model.chain().stem(x) if module is model._blocks[0] else x)
    following = model._blocks[3]
    wide = following._relu0(following._bn0(following._expand_conv(x)))
    assert wide.shape[1] == 144
    torch.testing.assert_close(model.intermediate_heads[0](x), model.intermediate_heads[0].answer(wide))


def test_exits_of_wide_blocks_stay_linear_and_are_cheap():
    model = expanded().eval()
    assert [type(head) for head in model.intermediate_heads] == [ExpandedHead, ExpandedHead, NormLinear]
    checks = [answer.check_macs for answer in count_macs(model, 64).exits]
    assert 24 * 144 * 16 * 16 < checks[0] < 1.1 * 24 * 144 * 16 * 16  # the convolution, and little else
    assert max(checks) < 0.04 * count_macs(model, 64).total


@torch.no_grad()
def test_folding_its_norm_changes_nothing():
    model = with_trained_norms(expanded())
    head, folded = model.intermediate_heads[1], fuse_norms(model).intermediate_heads[1]
    x = torch.randn(3, 80, 4, 4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(x), head(x), rtol=1e-4, atol=1e-5)


def test_other_networks_and_other_heads_are_refused():
    with pytest.raises(ModelError, match="exit_heads='expanded'"):
        create_model("recnext_t", num_classes=5, image_size=64, exit_heads="expanded")
    with pytest.raises(ModelError, match="exit_heads='wide'"):
        create_model("efficientnet_lite0", num_classes=5, image_size=64, exit_heads="wide")

"""Folding norms changes no answer."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pi_dynn.deploy.fuse import PooledLinear, fuse_norms
from pi_dynn.errors import ModelError
from pi_dynn.models.conv_norm import ConvNorm, MeanOfHeads, NormLinear, ResidualDepthwise
from tests.networks import tiny_chain, with_trained_norms

PARTS = {
    "convolution": (lambda: ConvNorm(6, 4, 3, stride=2), nn.Conv2d),
    "grouped, without a bias": (lambda: ConvNorm(6, 12, 5, groups=6, bias=False), nn.Conv2d),
    "residual depthwise": (
        lambda: ResidualDepthwise(ConvNorm(6, 6, 3, groups=6), ConvNorm(6, 6, groups=6, bias=False), ("a", "b")),
        nn.Conv2d,
    ),
    "head": (lambda: NormLinear(6, 5), PooledLinear),
    "head that leaves the last channels out": (lambda: NormLinear(4, 5), PooledLinear),
    "two heads": (lambda: MeanOfHeads(NormLinear(6, 5), NormLinear(6, 5)), PooledLinear),
}


@pytest.mark.parametrize("part", PARTS)
@torch.no_grad()
def test_each_part_becomes_one_layer_with_the_same_answer(part):
    torch.manual_seed(0)
    build, kind = PARTS[part]
    module = with_trained_norms(build())
    x = torch.randn(3, 6, 8, 8)
    fused = fuse_norms(module)
    assert type(fused) is kind
    assert not list(fused.children())
    assert_close(fused(x), module(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["recnext", "recnext_share_channel", "lsnet"])
@torch.no_grad()
def test_whole_networks_answer_as_before(family):
    model = tiny_chain(family, exits=[2, 4])
    state = {key: value.clone() for key, value in model.state_dict().items()}
    fused, x = fuse_norms(model), torch.randn(2, 3, 64, 64)
    for (_, got, got_gate), (_, want, gate) in zip(fused.forward_exits(x), model.forward_exits(x), strict=True):
        assert_close(got, want, rtol=1e-4, atol=1e-5)
        assert_close(got_gate, gate, rtol=1e-4, atol=1e-5)
    left = [name for name, module in fused.named_modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
    assert all(name.endswith("mixer.bn") for name in left)  # after an aggregation no weight takes a scale in
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_network_in_training_is_refused():
    model = tiny_chain("lsnet")
    model.blocks2[1].train()
    with pytest.raises(ModelError, match=r"LSNet is in training mode: call eval\(\)"):
        fuse_norms(model)

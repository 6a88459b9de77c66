"""What a traced stage becomes before it is quantised: the same answers, nothing left that torch.ao keeps in floats."""

import pytest
import torch
from torch import fx, nn

from pi_dynn.deploy.quantisable import quantisable
from pi_dynn.deploy.rounding import MOST_INPUTS, PatchMoments, rounded
from pi_dynn.deploy.static_quant import _quantised
from pi_dynn.models import create_model
from pi_dynn.runtime.engines import using_engine
from tests.networks import with_trained_norms


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("padding", [(0, 1, 0, 1), (1, 2, 1, 2), (2, 0, 1, 3), (1, 1, 1, 1)])
def test_padding_goes_into_the_convolution_exactly(size, stride, own, padding):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, stride, own, bias=False)
    stage = with_trained_norms(nn.Sequential(nn.ZeroPad2d(padding), conv, nn.BatchNorm2d(4), nn.ReLU6()))
    x = torch.randn(2, 3, size, size)
    rewritten = quantisable(fx.symbolic_trace(stage), x)
    torch.testing.assert_close(rewritten(x), stage(x))
    assert not any(isinstance(module, nn.ZeroPad2d) for module in map(rewritten.get_submodule, _called(rewritten)))


def _called(traced: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in traced.graph.nodes if node.op == "call_module"]


def test_padding_that_a_convolution_cannot_do_stays():
    stage = nn.Sequential(nn.ZeroPad2d((-1, 0, 0, 0)), nn.Conv2d(3, 4, 3), nn.ZeroPad2d(1), nn.MaxPool2d(2)).eval()
    x = torch.randn(1, 3, 8, 8)
    rewritten = quantisable(fx.symbolic_trace(stage), x)
    torch.testing.assert_close(rewritten(x), stage(x))
    assert _called(rewritten) == ["0", "1", "2", "3"]


@torch.no_grad()
@pytest.mark.parametrize(("blocks", "channels"), [(range(6), 3), ([15], 192)])
def test_nothing_of_efficientnet_lite_is_computed_in_floats(blocks, channels):
    torch.manual_seed(0)
    model = with_trained_norms(create_model("efficientnet_lite0", num_classes=5, image_size=32))
    chain = model.chain()
    modules = [module for block in blocks for module in chain.blocks[block]]
    stage = nn.Sequential(*([chain.stem] if channels == 3 else []), *modules)
    with using_engine("qnnpack"):
        made, reason = _quantised(stage, [torch.randn(4, channels, 32, 32)])
    assert reason is None
    changes = [node for node in made.graph.nodes if node.name.startswith(("quantize", "dequantize"))]
    assert len(changes) == 2  # once into int8, once out of it


def moments_of(conv: nn.Conv2d, x: torch.Tensor) -> PatchMoments:
    seen = PatchMoments()
    seen.look(conv, (x,), conv(x))
    return seen


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 8, 1),
        nn.Conv2d(6, 8, 3, 2, 1, bias=False),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 12, (3, 1), dilation=(2, 1), groups=3),
    ],
    ids=["pointwise", "dense", "depthwise", "grouped"],
)
@torch.no_grad()
def test_rounding_by_outputs_beats_rounding_by_weights(conv):
    torch.manual_seed(0)
    conv.reset_parameters()
    mixing = torch.randn(6, 6)
    x = torch.relu(torch.einsum("dc,bchw->bdhw", mixing, torch.randn(40, 6, 9, 9))) + 2.0  # bright, and alike
    seen = moments_of(conv, x[:32])
    scale = conv.weight.abs().amax((1, 2, 3)) / 7
    weight, bias = rounded(conv, scale, seen)
    steps = weight / scale[:, None, None, None]
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)

    def output(weight, bias):
        return torch.conv2d(x[32:], weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    nearest = (conv.weight / scale[:, None, None, None]).round() * scale[:, None, None, None]
    wanted = conv(x[32:])
    assert (output(weight, bias) - wanted).norm() < 0.75 * (output(nearest, conv.bias) - wanted).norm()


@torch.no_grad()
def test_of_very_many_inputs_only_the_mean_is_made_up_for():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(MOST_INPUTS + 1, 2, 1), torch.rand(8, MOST_INPUTS + 1, 2, 2)
    scale = conv.weight.abs().amax((1, 2, 3)) / 3
    weight, bias = rounded(conv, scale, moments_of(conv, x))
    torch.testing.assert_close(weight, (conv.weight / scale[:, None, None, None]).round() * scale[:, None, None, None])
    torch.testing.assert_close(torch.conv2d(x, weight, bias).mean((0, 2, 3)), conv(x).mean((0, 2, 3)))


def test_moments_are_those_of_the_patches():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(4, 6, 3, 2, 1, groups=2), torch.randn(5, 4, 11, 11)
    seen = moments_of(conv, x)
    mean, covariance = seen.mean(), seen.covariance()
    patches = nn.functional.unfold(x.double(), 3, padding=1, stride=2)  # (B, 4 * 9, places)
    for group, rows in enumerate(patches.transpose(0, 1).flatten(1).chunk(2)):
        torch.testing.assert_close(mean[group], rows.mean(1))
        torch.testing.assert_close(covariance[group], torch.cov(rows, correction=0))

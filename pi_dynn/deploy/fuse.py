"""Batch norms folded into the convolutions and linear layers beside them, exactly.

A trained batch norm is y = a*x + b per channel. After a convolution it scales that one's weights; before a
linear layer it goes into that one's columns. A residual depthwise block, convolutions side by side and the
input itself, is one convolution; two heads on the same features are one linear layer.
"""

import copy
from collections import OrderedDict
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pi_dynn.errors import ModelError
from pi_dynn.models.conv_norm import ConvNorm, MeanOfHeads, NormLinear, ResidualDepthwise, pooled
from pi_dynn.models.efficientnet_lite import ExpandedHead


class PooledLinear(nn.Linear):
    """Mean over positions, linear layer: features (B, C, ...) -> logits (B, classes); the first C channels count."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(pooled(x)[:, : self.in_features], self.weight, self.bias)


class HeadOnMaps(nn.Sequential):
    """The head of an exit with convolutions of its own, `maps`, before its `answer`: (B, C, H, W) -> (B, classes)."""

    def __init__(self, maps: nn.Module, answer: nn.Module) -> None:
        super().__init__(OrderedDict(maps=maps, answer=answer))


def fuse_norms(model: nn.Module) -> nn.Module:
    """A copy of `model` with every norm folded that can be; the keys are those of the published fused files.

    Raises: ModelError for a network in training mode, whose norms do not yet compute what is folded.
    """
    if any(module.training for module in model.modules()):
        raise ModelError(f"{type(model).__name__} is in training mode: call eval() before its norms are folded")
    with torch.no_grad():
        return _fuse_inside(copy.deepcopy(model))


def _fuse_inside(module: nn.Module) -> nn.Module:
    fused = fused_form(module)
    if fused is not None:
        return fused.eval()
    for name, child in module.named_children():
        setattr(module, name, _fuse_inside(child))
    return module


@singledispatch
def fused_form(module: nn.Module) -> nn.Module | None:
    """What `module` folds to; None for a kind that stays, whose children are then looked at."""
    return None


@fused_form.register
def _(module: ConvNorm) -> nn.Conv2d:
    conv, norm = module
    scale, shift = norm_as_affine(norm)
    bias = 0.0 if conv.bias is None else conv.bias.double() * scale
    return conv_like(conv, conv.weight.double() * scale[:, None, None, None], shift + bias)


@fused_form.register
def _(module: ResidualDepthwise) -> nn.Conv2d:
    wide, narrow = (fused_form(branch) for branch in module)
    weight, edge = wide.weight.double(), (wide.kernel_size[0] - narrow.kernel_size[0]) // 2
    centre = narrow.weight.double() + 1.0  # the input itself is a depthwise kernel of one
    return conv_like(wide, weight + F.pad(centre, [edge] * 4), wide.bias.double() + narrow.bias.double())


@fused_form.register
def _(module: NormLinear) -> PooledLinear:
    norm, linear = module
    scale, shift = norm_as_affine(norm)
    weight = linear.weight.double()
    return linear_of(weight * scale, linear.bias.double() + weight @ shift)


@fused_form.register
def _(module: ExpandedHead) -> HeadOnMaps:
    conv, norm, relu = module.maps
    scale, shift = norm_as_affine(norm)
    widened = conv_like(conv, conv.weight.double() * scale[:, None, None, None], shift)
    return HeadOnMaps(nn.Sequential(widened, relu), fused_form(module.answer))


@fused_form.register
def _(module: MeanOfHeads) -> PooledLinear:
    heads = [head if isinstance(head, PooledLinear) else fused_form(head) for head in (module.head, module.head_dist)]
    mean = [sum(parts).double() / 2 for parts in ((h.weight for h in heads), (h.bias for h in heads))]
    return linear_of(*mean)


def norm_as_affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,), float64, of a batch norm in evaluation."""
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def conv_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution of the same geometry with other weights."""
    copy = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, groups=conv.groups
    )
    copy.weight.copy_(weight)
    copy.bias.copy_(bias)
    return copy


def linear_of(weight: Tensor, bias: Tensor) -> PooledLinear:
    """A PooledLinear with this weight (out, in) and bias (out)."""
    layer = PooledLinear(weight.shape[1], weight.shape[0])
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer

"""Multiply-adds of a network, exit by exit.

One multiplication with one addition counts one. Counted per call, over all tokens of the call:

- convolution and linear layer: one per weight and output position; the bias is an addition, hence free;
- global filter: `N*C*ceil(log2(N))` for the transform of N tokens and as much for its inverse (the rule the
  GFNet authors count by), and 4 per complex product with the spectrum. It is the filter that is counted:
  FFT and matrix form give the same figure;
- layer and group norm: 2 per element (squares for the variance; scale and shift), batch norm 1;
- attention: the products of queries, keys and values, in the cheaper order where the kernel is linear;
- small-kernel aggregation: 9 per element;
- entropy gate: 2 per class (normalisation, entropy) and 1 for its share of the greatest;
- uncertainty gate: 5 per class (doubled logits, two normalisations, two entropies) and 4 for its linear layer.

Activations, means, residuals and other plain elementwise steps are not multiply-adds and count nothing.
"""

import math
from functools import singledispatch

import torch
from torch import nn

from pi_dynn.errors import ModelError
from pi_dynn.exits.gate import LearnableUncertaintyGate
from pi_dynn.exits.scores import EntropyGate
from pi_dynn.models.calls import LayerCall, trace_calls
from pi_dynn.models.dft import MatrixFilter
from pi_dynn.models.gfnet import GlobalFilter
from pi_dynn.models.linear_attention import KernelAttention, SoftmaxAttention, quadratic_is_cheaper
from pi_dynn.models.lsnet import BiasedAttention
from pi_dynn.models.mac_table import LayerMacs, MacTable, ModelSize, build_table
from pi_dynn.models.registry import create_model
from pi_dynn.models.ska import SmallKernelAggregation


def count_macs(model: nn.Module, image_size: int) -> MacTable:
    """Multiply-adds of `model` for one image of `image_size` pixels a side, cumulative per exit.

    Works on any network with `forward_exits`; a family with a layer of its own registers a rule for it:
    `@layer_macs.register`. The network runs once on an empty image, on the device it is on ("meta" too).

    Raises: ModelError for another image size than the network's, and for a layer without a rule.
    """
    built_for = getattr(model, "image_size", image_size)
    if built_for != image_size:
        raise ModelError(f"image_size={image_size} does not suit a network built for {built_for} px: build it anew")
    name = getattr(model, "name", type(model).__name__)
    trace = trace_calls(model, image_size, taken_whole=has_rule)
    rows = [_row(call) for call in trace.calls]
    return build_table(name, image_size, "multiply-adds", trace.blocks, [row for row in rows if row.macs])


def _row(call: LayerCall) -> LayerMacs:
    module, kind = call.module, type(call.module).__name__
    if not has_rule(module) and next(module.parameters(), None) is not None:
        raise ModelError(f"no rule counts {call.name} ({kind}): add one with layer_macs.register({kind})")
    return LayerMacs(call.name, kind, layer_macs(module, call), call.exit_index, call.is_check)


@singledispatch
def layer_macs(module: nn.Module, call: LayerCall) -> int:
    """Multiply-adds of one call of `module`; 0 for every kind of layer without a rule."""
    return 0


def has_rule(module: nn.Module) -> bool:
    """Whether `layer_macs` knows this kind of layer. It then answers for all that is inside, too."""
    return layer_macs.dispatch(type(module)) is not layer_macs.dispatch(object)


@layer_macs.register(nn.Conv1d)
@layer_macs.register(nn.Conv2d)
def _(module: nn.Conv1d | nn.Conv2d, call: LayerCall) -> int:
    return math.prod(call.output_shapes[0]) * module.weight[0].numel()


@layer_macs.register
def _(module: nn.Linear, call: LayerCall) -> int:
    return math.prod(call.output_shapes[0]) * module.in_features


@layer_macs.register(nn.LayerNorm)
@layer_macs.register(nn.GroupNorm)
def _(module: nn.LayerNorm | nn.GroupNorm, call: LayerCall) -> int:
    return 2 * math.prod(call.input_shapes[0])


@layer_macs.register(nn.BatchNorm1d)
@layer_macs.register(nn.BatchNorm2d)
def _(module: nn.BatchNorm1d | nn.BatchNorm2d, call: LayerCall) -> int:
    return math.prod(call.input_shapes[0])


@layer_macs.register(GlobalFilter)
@layer_macs.register(MatrixFilter)
def _(module: GlobalFilter | MatrixFilter, call: LayerCall) -> int:
    B, N, C = call.input_shapes[0]
    one_transform = N * C * math.ceil(math.log2(N))
    frequencies = module.a * (module.b // 2 + 1)
    return B * (2 * one_transform + 4 * frequencies * C)


@layer_macs.register
def _(module: KernelAttention, call: LayerCall) -> int:
    (B, D, N), _, (_, C, _) = call.input_shapes
    if quadratic_is_cheaper(D, C, N):
        return B * N * N * (D + C)
    return B * N * (2 * D * C + D)


@layer_macs.register(SoftmaxAttention)
@layer_macs.register(BiasedAttention)
def _(module: SoftmaxAttention | BiasedAttention, call: LayerCall) -> int:
    (*batch, D, N), _, (*_, C, _) = call.input_shapes[:3]
    return math.prod(batch) * N * N * (D + C)


@layer_macs.register
def _(module: SmallKernelAggregation, call: LayerCall) -> int:
    return 9 * math.prod(call.output_shapes[0])


@layer_macs.register
def _(module: LearnableUncertaintyGate, call: LayerCall) -> int:
    B, classes = call.input_shapes[0]
    return B * (5 * classes + module.linear.in_features)


@layer_macs.register
def _(module: EntropyGate, call: LayerCall) -> int:
    B, classes = call.input_shapes[0]
    return B * (2 * classes + 1)


USUAL_SIZE = {
    "gfnet_12_192": 128,
    "gfnet_12_192_narrow": 128,
    "gfnet_12_192_pooled": 128,
    "branchynet": 32,
    "b_lenet": 28,
    "b_alexnet": 32,
    "b_resnet_110": 32,
}  # image size in pixels where it is not 224


def describe_model(name: str, num_classes: int = 1000) -> ModelSize:
    """The size of a network for its usual images; "meta" tensors hold no memory."""
    image_size = USUAL_SIZE.get(name, 224)
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes, image_size=image_size)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelSize(name, image_size, num_classes, parameters, count_macs(model, image_size).total)

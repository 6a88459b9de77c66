"""A traced stage rewritten, exactly, so that torch.ao quantises all of it and computes it rightly."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

CHANNELWISE = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6)  # a cut may as well come after them, and then they fuse


def quantisable(traced: fx.GraphModule, x: Tensor) -> fx.GraphModule:
    """`traced` without modules that torch.ao computes wrongly or in floats; `x` is an input of its size. In place."""
    return _padded_by_convolutions(_without_quantised_clamps(traced), x)


class FloatClamp(nn.Module):
    """A clamp between `low` and `high` that quantising leaves in fp32, with what it reads.

    qnnpack's quantised clamp (torch 2.13) calls channels_last results contiguous, and every convolution is
    channels_last there: positions and channels are scrambled.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = float(low), float(high)

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x, self.low, self.high)


def _without_quantised_clamps(traced: fx.GraphModule) -> fx.GraphModule:
    """`traced` with every ReLU6 behind a convolution as a ReLU, which fuses into it; other clamps as a FloatClamp.

    The observer behind still sees values up to 6 only, so the range of the quantised output is what clamps there.
    """
    modules = dict(traced.named_modules())

    def made_by_convolution(node: fx.Node) -> bool:
        if isinstance(modules.get(str(node.target)), nn.BatchNorm2d) and len(node.users) == 1:
            node = node.args[0]
        return isinstance(modules.get(str(node.target)), nn.Conv2d) and len(node.users) == 1

    for number, node in enumerate(traced.graph.nodes):
        clamp = modules.get(str(node.target))
        if not isinstance(clamp, nn.Hardtanh):  # which ReLU6 is
            continue
        if isinstance(clamp, nn.ReLU6) and made_by_convolution(node.args[0]):
            changed = nn.ReLU().eval()
            changed.forward = F.relu6  # for the observer; fusing goes by the class
        else:
            changed = FloatClamp(clamp.min_val, clamp.max_val).eval()
        node.target = f"clamp_{number}"
        traced.add_submodule(node.target, changed)
    traced.recompile()
    return traced


def _padded_by_convolutions(traced: fx.GraphModule, x: Tensor) -> fx.GraphModule:
    """`traced` with every zero padding done by the convolution behind it, which then computes some rows too many.

    Padding grown by whole strides adds rows before the first and after the last, and changes none; they are cut off.
    torch.ao pads in floats, and a padded kernel would be one qnnpack has no fast depthwise form for.
    """
    ShapeProp(traced).propagate(x)
    modules = dict(traced.named_modules())
    for pad_node in list(traced.graph.nodes):
        pad, conv_node = modules.get(str(pad_node.target)), next(iter(pad_node.users), None)
        conv = None if conv_node is None else modules.get(str(conv_node.target))
        if not isinstance(pad, nn.ZeroPad2d) or len(pad_node.users) > 1 or not _pads_by_numbers(conv, pad):
            continue
        left, right, top, bottom = pad.padding
        grown, cut = zip(*map(_whole_strides, (top, left), (bottom, right), conv.stride), strict=True)
        wider = copy.deepcopy(conv)
        wider.padding = tuple(own + more for own, more in zip(conv.padding, grown, strict=True))
        conv_node.target = f"{conv_node.name}_padded"
        traced.add_submodule(conv_node.target, wider)
        conv_node.replace_input_with(pad_node, pad_node.args[0])
        traced.graph.erase_node(pad_node)
        _cut(traced, conv_node, cut, dict(traced.named_modules()))
    traced.recompile()
    return traced


def _pads_by_numbers(conv: nn.Module | None, pad: nn.ZeroPad2d) -> bool:
    """Whether `conv` is a convolution whose own padding can grow by `pad`."""
    own = isinstance(conv, nn.Conv2d) and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return own and min(pad.padding) >= 0


def _whole_strides(before: int, after: int, stride: int) -> tuple[int, int]:
    """The least padding on both sides that is `before` and whole strides, and how many outputs come too early."""
    early = max(0, -(-(after - before) // stride))
    return before + early * stride, early


def _cut(traced: fx.GraphModule, conv_node: fx.Node, early: tuple[int, ...], modules: dict[str, nn.Module]) -> None:
    """Cut what a convolution computes out to its rows and columns of before, behind what fuses into it."""
    last = conv_node
    while len(last.users) == 1 and isinstance(modules.get(str(next(iter(last.users)).target)), CHANNELWISE):
        last = next(iter(last.users))
    spans = zip((2, 3), early, conv_node.meta["tensor_meta"].shape[2:], strict=True)
    with traced.graph.inserting_after(last):
        rows = traced.graph.call_function(torch.narrow, (last, *next(spans)))
    last.replace_all_uses_with(rows, delete_user_cb=lambda user: user is not rows)
    with traced.graph.inserting_after(rows):
        columns = traced.graph.call_function(torch.narrow, (rows, *next(spans)))
    rows.replace_all_uses_with(columns, delete_user_cb=lambda user: user is not columns)

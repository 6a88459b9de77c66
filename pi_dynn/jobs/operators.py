"""Multiply-adds and bytes of the operators a network really runs, step by step.

The figures are those of the deployed form: a global filter counts as the matrix products it has become, not by
the rule that published tables use for its FFT.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pi_dynn.runtime.timed_network import TimedNetwork

_quantized = torch.ops.quantized
INT8_PRODUCTS = {  # operators: what unpacks the weight they are given, its output channels first
    _quantized.linear_dynamic.default: _quantized.linear_unpack,
    _quantized.linear.default: _quantized.linear_unpack,
    _quantized.linear_relu.default: _quantized.linear_unpack,
    _quantized.conv2d.new: _quantized.conv2d_unpack,
    _quantized.conv2d_relu.new: _quantized.conv2d_unpack,
}


@dataclass
class Work:
    """What one hit of a step computes and moves."""

    macs: int = 0
    int8_macs: int = 0
    moved_bytes: int = 0


def count_work(network: TimedNetwork, x: Tensor, thresholds: list[float]) -> dict[int, Work]:
    """The work of every step that an answer for `x` (1, 3, H, W) takes, by the number of the step."""
    counter = _Counter()
    with counter:
        network.run_marked(x, thresholds)
    counter.work.pop(-1, None)  # behind the last step
    return counter.work


class _Counter(TorchDispatchMode):
    """Adds up operators between the marks."""

    def __init__(self) -> None:
        super().__init__()
        self.work: dict[int, Work] = {}
        self._now = Work()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        if operator is torch.ops.aten.scalar_tensor.default:
            self._now = self.work.setdefault(int(args[0]), Work())
            return result
        if operator in INT8_PRODUCTS:
            weight = INT8_PRODUCTS[operator](args[1])[0]
            macs = result.numel() * weight[0].numel()
            self._now.int8_macs += macs
            self._now.moved_bytes += weight.numel()
        else:
            macs = _macs(operator, args, kwargs or {}, result)
        self._now.macs += macs
        if not operator._schema.returns or not _is_view(operator):
            self._now.moved_bytes += sum(tensor.nbytes for tensor in _tensors([*args, result]))
        return result


def _macs(operator, args, kwargs: dict, result) -> int:
    """Multiply-adds by torch's own table of operators; 0 for what is no product."""
    formula = flop_registry.get(operator.overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=result)) // 2


def _is_view(operator) -> bool:
    """Whether an operator returns its input's memory in another shape, and so moves nothing."""
    aliases = [value.alias_info for value in operator._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _tensors(values) -> list[Tensor]:
    found = [value for value in values if isinstance(value, Tensor)]
    return found + [one for value in values if isinstance(value, (list, tuple)) for one in _tensors(value)]

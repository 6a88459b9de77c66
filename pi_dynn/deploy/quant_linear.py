"""Linear layers with int8 weights, and their counterpart in floats.

Written against torch's stable operators rather than `torch.ao.nn.quantized`, because its dynamic module fixes
`reduce_range=True`, which costs half the activations' resolution where a CPU does not need it.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pi_dynn.runtime.engines import using_engine


def quantise_weight(weight: Tensor) -> Tensor:
    """Per-tensor symmetric int8 of a weight (out, in), in [-127, 127].

    -128 stays unused: two products with it overflow the 16-bit accumulator of a Cortex-A72 kernel. One
    scale for the whole tensor keeps Arm Compute Library's fast path, which per-channel scales leave.
    """
    scale = max(float(weight.abs().max()) / 127.0, torch.finfo(torch.float32).tiny)
    with warnings.catch_warnings():
        # Announced as deprecated, still in every supported torch; there is no other way to pack a weight.
        warnings.filterwarnings("ignore", message="torch.quantize_per_tensor", category=UserWarning)
        return torch.quantize_per_tensor(weight.detach().float(), scale, 0, torch.qint8)


class FloatLinear(nn.Module):
    """The fp32 counterpart: (B, N, in) -> (B, N, out)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().float().clone())
        self.register_buffer("bias", bias.detach().float().clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class QuantLinear(nn.Module):
    """An int8 weight packed for an engine, and what the runtime chooses for the machine it loads on."""

    def __init__(self, weight: Tensor, bias: Tensor, engine: str) -> None:
        super().__init__()
        with using_engine(engine):
            self.packed = torch.ops.quantized.linear_prepack(quantise_weight(weight), bias.detach().float())
        self.register_buffer("bias", bias.detach().float().clone())
        self.reduce_range = engine != "qnnpack"
        self.in_float = False
        self.weight_float = torch.zeros(0)


class DynamicQuantLinear(QuantLinear):
    """y = x W^T + b with int8 W; x is quantised by its own range, sample by sample: (B, N, in) -> (B, N, out).

    A sample's answer must not depend on its neighbours in a batch, so each is quantised alone; the matrix
    product over its N tokens is large enough that this costs next to nothing.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.in_float:
            return F.linear(x, self.weight_float, self.bias)
        if x.shape[0] == 1:
            return torch.ops.quantized.linear_dynamic(x, self.packed, self.reduce_range)
        samples = [torch.ops.quantized.linear_dynamic(sample, self.packed, self.reduce_range) for sample in x.unbind(0)]
        return torch.stack(samples)


class StaticQuantLinear(QuantLinear):
    """y = x W^T + b with int8 W; x and y have 8 bits over ranges found beforehand: (B, N, in) -> (B, N, out).

    A range is (scale, zero point) of unsigned values, the one type every engine takes.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, engine: str, range_in: tuple[float, int], range_out: tuple[float, int]
    ) -> None:
        super().__init__(weight, bias, engine)
        self.scale_in, self.zero_in = range_in
        self.scale_out, self.zero_out = range_out

    def forward(self, x: Tensor) -> Tensor:
        if self.in_float:
            return F.linear(x, self.weight_float, self.bias)
        scale, zero = self.scale_in, self.zero_in
        if self.reduce_range:  # the same range in 7 bits
            scale, zero = 2.0 * scale, zero // 2
        x = torch.quantize_per_tensor(x, scale, zero, torch.quint8)
        return torch.ops.quantized.linear(x, self.packed, self.scale_out, self.zero_out).dequantize()

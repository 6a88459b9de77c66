"""The LiteRT form of a GFNet: linear layers and GELU in static int8, norms and global filters in floats.

The weights are those of the bundle in int8; the ranges are those that images fill. Between blocks are the tokens
(N, C) in floats. Shape letters: N tokens in a grid (a, b), C channels.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pi_dynn.deploy.gfnet import fixed_tokens, head_layers
from pi_dynn.deploy.global_filter import axis_basis, effective_spectrum, mixing_weights
from pi_dynn.deploy.tflite import Quantisation, TfliteGraph
from pi_dynn.deploy.unpacked import training_network
from pi_dynn.models.gfnet import GFNet, PoolingBlock
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.engines import available_engines
from pi_dynn.runtime.torchscript import quantised_layers

LOWEST, HIGHEST = -128, 127
# The share of values at either end that a range leaves out: a few outliers cost all others their resolution. On the
# calibration part of ucm 99.6 % of the exits then agree with those of TorchScript, 95.2 % with none left out.
CLIPPED = 5e-5


class Linear(NamedTuple):
    """A linear layer in int8: weight (out, in) with its scales (out,), bias (out,), and what it reads and gives."""

    weight: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    entry: Quantisation
    result: Quantisation


@torch.no_grad()
def gfnet_graphs(bundle: Bundle, images: Tensor, schema: object) -> list[bytes]:
    """The graph of every stage, with the ranges that `images` (N, 3, H, W) fill.

    Raises: CheckpointError for another bundle.
    """
    model, _ = training_network(bundle)
    stem, *layers = _layers(bundle, model, images)
    bounds = [-1, *model.exit_blocks, model.depth - 1]
    graphs: list[bytes] = []
    shape: list[int] = []
    for k, (before, last) in enumerate(zip(bounds, bounds[1:])):
        writer = _Writer(schema, model)
        x = writer.graph.input(shape) if graphs else writer.stem(stem)
        for i in range(before + 1, last + 1):
            x = writer.block(x, model.blocks[i], *layers[2 * i : 2 * i + 2])
        final = last == model.depth - 1
        answer = writer.head(x, head_layers(model, None if final else k))
        writer.graph.outputs += [*([] if final else [x]), answer]
        graphs.append(writer.graph.pack())
        shape = writer.graph.shape(x)
    return graphs


def _layers(bundle: Bundle, model: GFNet, images: Tensor) -> list[Linear]:
    """The patch embedding, and both linear layers of every block, with the ranges that `images` fill."""
    wanted = [model.patch_embed.proj, *(layer for block in model.blocks for layer in (block.mlp.fc1, block.mlp.fc2))]
    ranges: dict[nn.Module, list[tuple[float, ...]]] = {layer: [] for layer in wanted}

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
        """The ends of what the layer reads and gives."""
        ranges[layer].append((*ends(inputs[0]), *ends(result)))

    hooks = [layer.register_forward_hook(keep) for layer in wanted]
    for some in images.split(16):
        model(some)
    for hook in hooks:
        hook.remove()
    packed = quantised_layers(bundle.load_network(available_engines()[0]))
    made = []
    for layer, one in zip(wanted, packed, strict=True):
        weight, bias = torch.ops.quantized.linear_unpack(one.packed)
        scales = weight.q_per_channel_scales() if weight.qscheme() == torch.per_channel_affine else weight.q_scale()
        lowest, highest, least, most = np.array(ranges[layer]).T
        made.append(
            Linear(
                weight.int_repr().numpy(),
                np.broadcast_to(np.asarray(scales, np.float32), len(weight)),
                bias.numpy(),
                range_of(lowest.min(), highest.max()),
                range_of(least.min(), most.max()),
            )
        )
    return made


def ends(x: Tensor) -> tuple[float, float]:
    """The lowest and the highest value but for the CLIPPED ones."""
    values = x.flatten()
    k = 1 + int(len(values) * CLIPPED)
    return float(values.kthvalue(k).values), float(values.kthvalue(len(values) - k + 1).values)


def range_of(lowest: float, highest: float) -> Quantisation:
    """The steps of int8 from `lowest` to `highest`, with one that means zero."""
    lowest, highest = min(lowest, 0.0), max(highest, 0.0, lowest + 1e-6)
    scale = float(np.float32((highest - lowest) / (HIGHEST - LOWEST)))
    return Quantisation(scale, max(LOWEST, min(HIGHEST, round(LOWEST - lowest / scale))))


class _Writer:
    """Writes the parts of a GFNet into a graph."""

    def __init__(self, schema: object, model: GFNet) -> None:
        self.graph, self.model = TfliteGraph(schema), model
        self.channels = model.dim

    def constant(self, values: object) -> int:
        """A constant in floats."""
        return self.graph.constant(np.ascontiguousarray(np.asarray(values, np.float32)))

    def integers(self, values: object) -> int:
        """A constant in int32."""
        return self.graph.constant(np.asarray(values, np.int32))

    def stem(self, layer: Linear) -> int:
        """Image (1, 3, H, W) to tokens."""
        size, patch = self.model.image_size, self.model.patch_embed.proj.kernel_size[0]
        side, pixels = size // patch, 3 * patch * patch
        prefix, positions = (tokens[0].numpy() for tokens in fixed_tokens(self.model))
        x = self.graph.add("QUANTIZE", [self.graph.input([1, 3, size, size])], [1, 3, size, size], layer.entry)
        # Patches as rows: a convolution with steps of its own size reads three channels at a time.
        x = self.graph.add("RESHAPE", [x], [3, side, patch, side, patch], layer.entry)
        shape = [side, side, 3, patch, patch]
        x = self.graph.add("TRANSPOSE", [x, self.integers([1, 3, 0, 2, 4])], shape, layer.entry)
        x = self.graph.add("RESHAPE", [x], [side * side, pixels], layer.entry)
        x = self.add(self.floats(self.linear(x, layer)), self.constant(positions))
        if len(prefix) == 0:
            return x
        shape = [len(prefix) + len(positions), self.channels]
        return self.graph.add("CONCATENATION", [self.constant(prefix), x], shape, None, axis=0)

    def block(self, x: int, block: nn.Module, first: Linear, second: Linear) -> int:
        """Tokens after a block."""
        y = self.filter(self.norm(x, block.norm1), block)
        y = self.norm(y, block.norm2)
        y = self.graph.add("QUANTIZE", [y], self.graph.shape(y), first.entry)
        y = self.linear(y, first)
        y = self.graph.add("GELU", [y], self.graph.shape(y), second.entry)
        x = self.add(x, self.floats(self.linear(y, second)))
        return self.pool(x, block.filter.a, block.filter.b) if isinstance(block, PoolingBlock) else x

    def pool(self, x: int, a: int, b: int) -> int:
        """The mean of each 2 x 2 tokens of a grid (a, b)."""
        x = self.graph.add("RESHAPE", [x], [1, a, b, self.channels], None)
        window = {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2}
        x = self.graph.add("AVERAGE_POOL_2D", [x], [1, a // 2, b // 2, self.channels], None, **window)
        return self.graph.add("RESHAPE", [x], [a * b // 4, self.channels], None)

    def head(self, x: int, layers: list[nn.Linear]) -> int:
        """Logits (1, classes), in floats: the mean of the layers, each on a token of its own."""
        read = len(layers) * self.channels
        if self.model.distilled:
            shape = [len(layers), self.channels]
            x = self.norm(
                self.graph.add("SLICE", [x, self.integers([0, 0]), self.integers(shape)], shape, None), self.model.norm
            )
            x = self.graph.add("RESHAPE", [x], [1, read], None)
        else:
            x = self.norm(x, self.model.norm)
            x = self.graph.add("MEAN", [x, self.integers([0])], [1, read], None, keepDims=True)
        weight = torch.cat([layer.weight for layer in layers], 1) / len(layers)
        bias = torch.stack([layer.bias for layer in layers]).mean(0)
        inputs = [x, self.constant(weight.numpy()), self.constant(bias.numpy())]
        return self.graph.add("FULLY_CONNECTED", inputs, [1, len(bias)], None)

    def norm(self, x: int, norm: nn.LayerNorm) -> int:
        """Layer norm, its affine part if it has one."""
        shape, one = self.graph.shape(x), [self.graph.shape(x)[0], 1]
        mean = self.graph.add("MEAN", [x, self.integers([1])], one, None, keepDims=True)
        x = self.graph.add("SUB", [x, mean], shape, None)
        square = self.graph.add("MUL", [x, x], shape, None)
        square = self.graph.add("MEAN", [square, self.integers([1])], one, None, keepDims=True)
        square = self.add(square, self.constant([[norm.eps]]))
        x = self.graph.add("MUL", [x, self.graph.add("RSQRT", [square], one, None)], shape, None)
        if not torch.allclose(norm.weight, torch.ones(())):
            x = self.graph.add("MUL", [x, self.constant(norm.weight.numpy())], shape, None)
        if norm.bias.abs().max() > 0.0:
            x = self.add(x, self.constant(norm.bias.numpy()))
        return x

    def filter(self, x: int, block: nn.Module) -> int:
        """The global filter of tokens: into the basis, four terms, and back."""
        a, b, c = block.filter.a, block.filter.b, self.channels
        bases = axis_basis(a), axis_basis(b)
        rows, columns = (basis.numpy() for basis in bases)
        i, j = len(rows), len(columns)  # one more than places where their number is odd
        terms = [one.reshape(j, i, c).numpy() for one in mixing_weights(effective_spectrum(block.filter), *bases)]
        x = self.product(rows, x, b)  # (i, v, C)
        x = self.product(columns, self.swapped(x, [i, b, c]), i)  # (j, i, C)
        x = self.graph.add("RESHAPE", [x], [j, i, c], None)
        beside = self.halves_swapped(x, 1)
        own, across = (
            self.add(*(self.graph.add("MUL", [y, self.constant(term)], [j, i, c], None) for y, term in pairs))
            # what comes from the partner's column is computed there, and swapped once
            for pairs in (
                zip((x, beside), terms[:2], strict=True),
                zip((x, beside), np.roll(terms[2:], j // 2, axis=1), strict=True),
            )
        )
        x = self.add(own, self.halves_swapped(across, 0))
        x = self.product(columns.T, x, i)  # (v, i, C)
        x = self.product(rows.T, self.swapped(x, [b, i, c]), b)  # (u, v, C)
        return self.graph.add("RESHAPE", [x], [a * b, c], None)

    def product(self, matrix: np.ndarray, x: int, others: int) -> int:
        """`matrix` by what is along the first dimension of `x`: (1, len(matrix), others * C)."""
        side, width = len(matrix), others * self.channels
        x = self.graph.add("RESHAPE", [x], [1, matrix.shape[1], width], None)
        return self.graph.add("BATCH_MATMUL", [self.constant(matrix[None]), x], [1, side, width], None)

    def swapped(self, x: int, shape: list[int]) -> int:
        """`x` of that shape with its first two dimensions in the other order."""
        x = self.graph.add("RESHAPE", [x], shape, None)
        return self.graph.add("TRANSPOSE", [x, self.integers([1, 0, 2])], [shape[1], shape[0], shape[2]], None)

    def halves_swapped(self, x: int, dim: int) -> int:
        """The second half of a dimension before the first."""
        half = list(self.graph.shape(x))
        half[dim] //= 2
        starts = [[half[dim] if d == dim else 0 for d in range(3)], [0, 0, 0]]
        parts = [self.graph.add("SLICE", [x, self.integers(s), self.integers(half)], half, None) for s in starts]
        return self.graph.add("CONCATENATION", parts, self.graph.shape(x), None, axis=dim)

    def linear(self, x: int, layer: Linear) -> int:
        """A linear layer of tokens."""
        steps = np.float32(layer.entry.scale) * layer.scales
        bias = np.rint(layer.bias.astype(np.float64) / steps).astype(np.int32)
        inputs = [x, self.graph.constant(layer.weight, layer.scales), self.graph.constant(bias, steps)]
        return self.graph.add("FULLY_CONNECTED", inputs, [self.graph.shape(x)[0], len(bias)], layer.result)

    def floats(self, x: int) -> int:
        """`x` in floats."""
        return self.graph.add("DEQUANTIZE", [x], self.graph.shape(x), None)

    def add(self, x: int, y: int) -> int:
        """The sum, of the shape of `x`."""
        return self.graph.add("ADD", [x, y], self.graph.shape(x), None)

"""A bundle's network back in its training form, so that it can be trained on.

What was folded stays folded: norms come back without their scale and shift, which are in the layers behind them.
int8 weights come back as they are, in multiples of their scale. Answers are those of the bundle in floats.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pi_dynn.deploy.global_filter import FullFilter, SeparableFilter, deploy_filter
from pi_dynn.errors import CheckpointError
from pi_dynn.models.card import Card, save_weights
from pi_dynn.models.gfnet import GFNet, GlobalFilter
from pi_dynn.models.registry import create_model
from pi_dynn.runtime.bundle import Bundle, is_bundle, load_bundle
from pi_dynn.runtime.engine_choice import relative_error
from pi_dynn.runtime.forms import TORCHSCRIPT
from pi_dynn.runtime.torchscript import quantised_layers

EMBEDDED = "embedded"
WORST_RELATIVE_ERROR = 1e-3  # the training form computes the same by an FFT
# Where the constants of each form of a filter are used, in their order: the operation, and the constant's dimensions.
CONSTANTS = {
    SeparableFilter: {
        "own": ("aten::mul", 6),
        "cosine_from_sine": ("aten::addcmul_", 5),
        "sine_from_cosine": ("aten::addcmul_", 5),
        "constant": ("aten::add_", 1),
    },
    FullFilter: {"scale": ("aten::mul", 3), "turn": ("aten::addcmul", 3), "constant": ("aten::baddbmm", 1)},
}


def weights_to_start_from(source: Path, folder: Path) -> Path:
    """`source`; for a bundle, or "embedded", a weights file in `folder` with what is in it.

    Raises: CheckpointError for a bundle whose weights cannot be read back.
    """
    embedded = str(source) == EMBEDDED and not source.exists()
    if not embedded and not is_bundle(source):
        return source
    state, card = training_form(load_bundle(None if embedded else source))
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / "init.safetensors", state, card)
    return folder / "init.safetensors"


def training_form(bundle: Bundle) -> tuple[dict[str, Tensor], Card]:
    """The weights of `training_network` by their published keys, and its card. Raises: CheckpointError."""
    model, card = training_network(bundle)
    return model.state_dict(), card


@torch.no_grad()
def training_network(bundle: Bundle) -> tuple[nn.Module, Card]:
    """The network of a GFNet's int8 bundle in its training form, ready to answer, and its card.

    Raises: CheckpointError for another bundle, and if the network made of the weights answers otherwise.
    """
    manifest, name = bundle.manifest, bundle.source or "the bundle"
    arguments = manifest.arguments | {"exits": manifest.exit_blocks or None}
    model = create_model(manifest.model, **arguments)
    if not isinstance(model, GFNet) or manifest.precision != "int8" or manifest.format != TORCHSCRIPT:
        raise CheckpointError(
            f"{name} is a bundle of {manifest.model} in {manifest.precision}, whose weights cannot be read back: "
            "give the checkpoint it was made of"
        )
    network = bundle.load_network("fp32")
    model.load_state_dict(_state(network, model), strict=True)
    x = torch.randn(1, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(0))
    answers = [logits for _, logits, _ in model.eval().forward_exits(x)]
    error = relative_error(answers, network.forward_all(x))
    if not error <= WORST_RELATIVE_ERROR:
        raise CheckpointError(
            f"{name}: its weights, read back, answer otherwise (off by {error:.1e}): give a checkpoint"
        )
    notes = manifest.notes.get("stages", [])
    return model, Card(manifest.model, arguments, manifest.labels, manifest.preprocess, notes)


def _state(network: torch.jit.ScriptModule, model: GFNet) -> dict[str, Tensor]:
    """The published keys of everything in `network`."""
    stem, *layers = [torch.ops.quantized.linear_unpack(layer.packed) for layer in quantised_layers(network)]
    (weight, bias), C = (stem[0].dequantize(), stem[1]), model.dim
    tokens = network.start(torch.zeros(1, 3, model.image_size, model.image_size))
    prefix = tokens[:, : tokens.shape[1] - model.patch_embed.num_patches]
    state = {
        "patch_embed.proj.weight": weight.view_as(model.patch_embed.proj.weight),
        "patch_embed.proj.bias": bias,
        "pos_embed": torch.cat((torch.zeros_like(prefix), tokens[:, prefix.shape[1] :] - bias), 1),
        "norm.weight": torch.ones(C),
        "norm.bias": torch.zeros(C),
    }
    state |= {f"{name}_token": prefix[:, t : t + 1] for t, name in enumerate(("cls", "dist")[: prefix.shape[1]])}
    filters = _filters(network, model)
    for i in range(model.depth):
        spectrum, shift = next(filters)
        values = {"norm1.weight": torch.ones(C), "norm1.bias": shift, "filter.complex_weight": spectrum}
        values |= {"norm2.weight": torch.ones(C), "norm2.bias": torch.zeros(C)}
        for layer, (weight, bias) in zip(("mlp.fc1", "mlp.fc2"), layers[2 * i : 2 * i + 2], strict=True):
            values |= {f"{layer}.weight": weight.dequantize(), f"{layer}.bias": bias}
        state |= {f"blocks.{i}.{key}": value for key, value in values.items()}
    heads = [*(f"intermediate_heads{{}}.{k}" for k in range(len(model.exit_blocks))), "head{}"]
    for key, head in zip(heads, [*network.heads.children(), network.last_head], strict=True):
        read = head.weight.split(C)  # by class and distillation token, or of the mean of all tokens
        factor = len(read) if model.distilled else 1 / math.sqrt(C)
        for kind, weight in zip(("", "_dist"), read, strict=False):
            state |= {f"{key.format(kind)}.weight": weight.T * factor, f"{key.format(kind)}.bias": head.bias}
    # Fresh gates stay where exits are judged by another score than a learned one.
    state |= {key: value for key, value in model.state_dict().items() if key.startswith("gates.")}
    for k, gate in enumerate(network.gates.children()):
        if hasattr(gate, "top_weight"):
            (one, two), entropy = gate.top_weight, gate.entropy_weight[:: model.num_classes]
            state[f"gates.{k}.linear.weight"] = torch.stack((one + two, entropy[0], -two, entropy[1]))[None]
            state[f"gates.{k}.linear.bias"] = gate.bias
    return state


def _filters(network: torch.jit.ScriptModule, model: GFNet) -> Iterator[tuple[Tensor, Tensor]]:
    """The spectrum of every block's filter, and the shift of the norm before it. Raises CheckpointError."""
    found, C = _filter_constants(network), model.dim
    for block in model.blocks:
        a, b = block.filter.a, block.filter.b
        source = deploy_filter(GlobalFilter(C, (a, b)), nn.LayerNorm(C))
        for name, place in CONSTANTS[type(source)].items():
            if not found[place]:
                raise CheckpointError(
                    "the filters of the bundle are of another form: give the checkpoint it was made of"
                )
            getattr(source, name).copy_(found[place].pop(0))
        impulse = torch.zeros(1, a * b, C)
        shift = source(impulse)
        impulse[0, 0] = 1.0
        kernel = (source(impulse) - shift).double().view(a, b, C) / math.sqrt(C)
        spectrum = torch.fft.rfft2(kernel, dim=(0, 1))
        yield torch.view_as_real(spectrum).float(), shift[0, 0] / kernel.sum((0, 1)).float()


def _filter_constants(network: torch.jit.ScriptModule) -> dict[tuple[str, int], list[Tensor]]:
    """The constants that the filters of a frozen network compute with, by their place, in the order of the blocks."""
    found: dict[tuple[str, int], list[Tensor]] = {place: [] for form in CONSTANTS.values() for place in form.values()}
    for stage in [*network.stages.children(), network.last_stage]:
        seen: set[str] = set()
        for node in _all_nodes(stage.forward.graph):
            values = [value for value in node.inputs() if value.node().kind() == "prim::Constant"]
            for value in values:
                constant = value.toIValue()
                if value.debugName() in seen or not isinstance(constant, Tensor):
                    continue
                if (place := (node.kind(), constant.dim())) in found:
                    seen.add(value.debugName())
                    found[place].append(constant)
    return found


def _all_nodes(block: Any) -> Iterator:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _all_nodes(inner)

"""Peers: the same network in other runtimes, for comparison with a session: eager, compiled, ONNX Runtime, ExecuTorch.

Every peer answers one image and may leave early, with the gate evaluated between its stages.
Shape letters: B batch, K exits.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pi_dynn.deploy.builder import deploy_form
from pi_dynn.deploy.network import EarlyExitNetwork
from pi_dynn.deploy.onnx import in_whole_tensors
from pi_dynn.errors import EngineUnavailable, ModelError, need_extra
from pi_dynn.models.chain import ChainNetwork
from pi_dynn.models.gfnet import GFNet
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.session import Session

PEERS = ("eager", "compile", "onnxruntime", "executorch")

Stage = Callable[[Tensor], tuple[Tensor, ...]]  # features before -> features after, logits; the last logits alone
Layer = Callable[[Tensor], Tensor]  # a module, or a function
Gate = Layer  # logits (1, classes) -> value before the sigmoid (1,)


@dataclass(frozen=True)
class Peer:
    """A network in some runtime: `answer(x, thresholds)` of one image (1, 3, H, W) returns its exit.

    It has `exits` of them before the last answer, and needs as many thresholds.
    """

    name: str
    answer: Callable[[Tensor, list[float]], int]
    exits: int


def session_peer(name: str, session: Session) -> Peer:
    """A session as a peer."""
    return Peer(name, lambda x, thresholds: session.answer(x, thresholds)[1], session.exits)


def staged_peer(name: str, stages: Sequence[Stage], gates: Sequence[Gate]) -> Peer:
    """A peer of K + 1 stages; after each but the last its gate is evaluated, outside of the stage."""

    def answer(x: Tensor, thresholds: list[float]) -> int:
        with torch.inference_mode():
            for k, (gate, threshold) in enumerate(zip(gates, thresholds, strict=True)):
                x, logits = stages[k](x)
                if float(torch.sigmoid(gate(logits))) >= threshold:
                    return k
            stages[-1](x)
        return len(gates)

    return Peer(name, answer, len(gates))


def eager_peer(model: nn.Module, exits: Sequence[int]) -> Peer:
    """The training form without changes, as published work runs it."""
    return staged_peer("eager, fp32", training_stages(model, exits), training_gates(model, exits))


def compiled_peer(model: nn.Module, exits: Sequence[int]) -> Peer:
    """The training form through torch.compile, a graph per stage. Compiles at the first answer of each."""
    stages = [torch.compile(stage, dynamic=False) for stage in training_stages(model, exits)]
    return staged_peer("torch.compile, fp32", stages, training_gates(model, exits))


def onnxruntime_peer(bundle: Bundle, precision: str, threads: int) -> Peer:
    """The bundle's network as ONNX graphs, one per stage. Raises: EngineUnavailable without onnx and onnxruntime."""
    from pi_dynn.deploy.onnx import onnx_bundle

    return session_peer(f"ONNX Runtime, {precision}", Session(onnx_bundle(bundle, precision), threads=threads))


def executorch_peer(model: nn.Module, exits: Sequence[int], precision: str, threads: int) -> Peer:
    """The deploy form lowered to XNNPACK, a method per stage. Raises: EngineUnavailable without executorch."""

    stages, gates = executorch_stages(model, list(exits), precision, threads)
    return staged_peer(f"ExecuTorch, {precision}", stages, gates)


def peers_of(name: str, model: nn.Module, bundle: Bundle, threads: int) -> list[Peer]:
    """The peers called `name`, with the exits of `bundle`; those with an int8 form have one beside fp32.

    Raises: EngineUnavailable for one that is unknown or not installed, ModelError for a network it cannot run.
    """
    exits = bundle.manifest.exit_blocks
    precisions = ["fp32"] if bundle.manifest.precision == "fp32" else ["fp32", "int8"]
    makers: dict[str, Callable[[], list[Peer]]] = {
        "eager": lambda: [eager_peer(model, exits)],
        "compile": lambda: [compiled_peer(model, exits)],
        "onnxruntime": lambda: [onnxruntime_peer(bundle, precision, threads) for precision in precisions],
        "executorch": lambda: [executorch_peer(model, exits, precision, threads) for precision in precisions],
    }
    if name not in makers:
        raise EngineUnavailable(f"no peer {name!r}: choose from {', '.join(PEERS)}")
    return makers[name]()


class TrainingStage(nn.Module):
    """Some blocks of a training form, and the answer after the last of them."""

    def __init__(self, begin: Layer, blocks: Sequence[nn.Module], answer: Layer, last: bool) -> None:
        super().__init__()
        self.begin, self.blocks, self.answer, self.last = begin, nn.ModuleList(blocks), answer, last

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.begin(x)
        for block in self.blocks:
            x = block(x)
        logits = self.answer(x)
        return (logits,) if self.last else (x, logits)


def training_stages(model: nn.Module, exits: Sequence[int]) -> list[TrainingStage]:
    """The training form, divided after each of `exits`. Raises: ModelError for a network that is no chain of blocks."""
    model = _in_blocks(model)
    stem: Layer
    heads: list[Layer]
    if isinstance(model, GFNet):
        stem, blocks, last = model.embed, [[block] for block in model.blocks], model.final_logits
        heads = [partial(model.exit_logits, k=k) for k in range(len(model.exit_blocks))]
    else:
        chain = model.chain()
        stem, blocks, last = chain.stem, chain.blocks, chain.head
        heads = [model.exit_head(k) for k in range(len(model.exit_blocks))]
    stages = []
    bounds = [0, *(block + 1 for block in exits), model.depth]
    for k, (start, stop) in enumerate(pairwise(bounds)):
        is_last = k == len(exits)
        answer = last if is_last else heads[model.exit_blocks.index(exits[k])]
        inside = [module for block in blocks[start:stop] for module in block]
        stages.append(TrainingStage(stem if k == 0 else nn.Identity(), inside, answer, is_last).eval())
    return stages


def training_gates(model: nn.Module, exits: Sequence[int]) -> list[nn.Module]:
    """The gates of `exits`."""
    form = _in_blocks(model)
    return [form.gates[form.exit_blocks.index(block)] for block in exits]


def _in_blocks(model: nn.Module) -> GFNet | ChainNetwork:
    """The network, if it is a chain of blocks. Raises: ModelError."""
    if not isinstance(model, (GFNet, ChainNetwork)):
        raise ModelError(f"{type(model).__name__} cannot be divided into stages: compare a GFNet or a chain of blocks")
    return model


class ExportedStage(nn.Module):
    """Stage `k` with its head, and the stem for the first: features before -> features after, logits."""

    def __init__(self, network: EarlyExitNetwork, k: int) -> None:
        super().__init__()
        self.is_last = k == network.exits
        self.stem = network.stem if k == 0 else nn.Identity()
        self.stage = network.last_stage if self.is_last else network.stages[k]
        self.head = network.last_head if self.is_last else network.heads[k]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stage(self.stem(x))
        logits = self.head(x)
        return (logits,) if self.is_last else (x, logits)


def executorch_stages(
    model: nn.Module, exits: list[int], precision: str, threads: int
) -> tuple[list[Stage], list[nn.Module]]:
    """The stages as functions that ExecuTorch runs, and the gates between them.

    Raises: EngineUnavailable without executorch.
    """
    with need_extra("executorch", "peer 'executorch'", EngineUnavailable):
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime
    network = in_whole_tensors(deploy_form(model, exits, "fp32", None))
    size = _in_blocks(model).image_size
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's deprecation warnings
        program = lowered(network, torch.zeros(1, 3, size, size), precision)
    portable_lib._unsafe_reset_threadpool(threads)
    loaded = Runtime.get().load_program(program)
    methods = [loaded.load_method(method_name(k)) for k in range(network.exits + 1)]

    def stage(method: Any) -> Stage:  # ExecuTorch only points at the program, which a default keeps alive
        def run(x: Tensor, _kept_alive: object = (program, loaded)) -> tuple[Tensor, ...]:
            outputs: tuple[Tensor, ...] = method.execute([x])
            return outputs

        return run

    return [stage(method) for method in methods], list(network.gates)


def method_name(k: int) -> str:
    """The method of the program that holds stage `k`."""
    return f"stage{k}"


def lowered(network: EarlyExitNetwork, x: Tensor, precision: str) -> bytes:
    """The program of all stages for images like `x`, for XNNPACK; "int8" quantises dynamically."""
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    programs, partitioners = {}, [XnnpackPartitioner()]
    if precision == "int8":
        dynamic = XnnpackPartitioner(config_precisions=ConfigPrecisionType.DYNAMIC_QUANT, per_op_mode=True)
        partitioners = [dynamic, *partitioners]
    for k in range(network.exits + 1):
        stage: nn.Module = ExportedStage(network, k).eval()
        outputs = stage(x)
        if precision == "int8":
            stage = _quantised(stage, x)
        programs[method_name(k)] = torch.export.export(stage, (x,))
        x = outputs[0]
    content: bytes = to_edge_transform_and_lower(programs, partitioner=partitioners).to_executorch().buffer
    return content


def _quantised(stage: nn.Module, x: Tensor) -> nn.Module:
    """The stage with dynamically quantised linear layers, weights per channel, as ExecuTorch recommends."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantiser = XNNPACKQuantizer()
    quantiser.set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    prepared = prepare_pt2e(torch.export.export(stage, (x,)).module(), quantiser)
    prepared(x)
    converted: nn.Module = convert_pt2e(prepared)
    return converted

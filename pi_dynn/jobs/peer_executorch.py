"""A network on ExecuTorch: its stages as methods of one program, lowered to XNNPACK.

Control flow does not go into a lowered program, so each stage is a method and the gate stays outside. The
training form's complex FFT is refused there; it is our deploy form in fp32 that is exported, and quantised by
ExecuTorch's own quantiser for int8.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pi_dynn.deploy.builder import deploy_form
from pi_dynn.deploy.network import EarlyExitNetwork
from pi_dynn.deploy.onnx import in_whole_tensors
from pi_dynn.errors import EngineUnavailable

_CURE = "pip install executorch (torch's next runtime; its wheels follow one version of torch)"


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
) -> tuple[list[Callable], list[nn.Module]]:
    """The stages as functions that ExecuTorch runs, and the gates between them.

    Raises: EngineUnavailable without executorch.
    """
    try:
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime
    except ImportError as error:
        raise EngineUnavailable(f"peer 'executorch' needs its package ({error}): {_CURE}") from error
    network = in_whole_tensors(deploy_form(model, exits, "fp32", None))
    size = model.image_size
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its own future
        program = lowered(network, torch.zeros(1, 3, size, size), precision)
    portable_lib._unsafe_reset_threadpool(threads)
    loaded = Runtime.get().load_program(program)
    methods = [loaded.load_method(method_name(k)) for k in range(network.exits + 1)]

    def stage(method) -> Callable:
        def run(x: Tensor, _kept_alive=(program, loaded)) -> tuple[Tensor, ...]:  # ExecuTorch only points at them
            return method.execute([x])

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
        stage = ExportedStage(network, k).eval()
        outputs = stage(x)
        if precision == "int8":
            stage = _quantised(stage, x)
        programs[method_name(k)] = torch.export.export(stage, (x,))
        x = outputs[0]
    return to_edge_transform_and_lower(programs, partitioner=partitioners).to_executorch().buffer


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
    return convert_pt2e(prepared)

"""Convolutions in int8: stages quantised statically by torch's FX path, with the ranges calibration images fill.

Each stage is traced on its own, so the exits between stages stay real decisions; FX refuses to trace what branches
on values, so no branch is frozen. Heads and gates stay in fp32, and so does a stage that cannot be traced.
"""

import copy
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.ao.quantization import (
    HistogramObserver,
    QConfig,
    QConfigMapping,
    default_per_channel_weight_observer,
    get_default_qconfig_mapping,
)
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from pi_dynn.deploy.network import EarlyExitNetwork
from pi_dynn.deploy.static_check import BATCH, StaticQuantisation, compared
from pi_dynn.errors import ModelError
from pi_dynn.runtime.engines import using_engine


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


@torch.no_grad()
def quantise_statically(
    network: EarlyExitNetwork, images: Tensor, engine: str
) -> tuple[EarlyExitNetwork, StaticQuantisation]:
    """The fp32 deploy form with its stages in int8 packed for `engine`, by preprocessed `images` (N, 3, H, W).

    Raises: ModelError if no stage can be traced, or if int8 answers otherwise than fp32.
    """
    quantised, kept = copy.deepcopy(network), {}
    inputs = list(images.split(BATCH))

    def part(module: nn.Module, name: str) -> nn.Module:
        nonlocal inputs
        made = module
        if any(isinstance(child, (nn.Conv2d, nn.Linear)) for child in module.modules()):
            made, reason = _quantised(module, inputs)
            if reason is not None:
                kept[name] = reason
        inputs = [module(x) for x in inputs]  # the stages after it are shown what fp32 makes of the images
        return made

    with using_engine(engine), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is announced as deprecated; every supported torch has it
        stages = [*network.stages, network.last_stage]
        quantised.stem = part(network.stem, "stem")
        made = [part(stage, f"stage {k}") for k, stage in enumerate(stages)]
        quantised.stages, quantised.last_stage = nn.ModuleList(made[:-1]), made[-1]
        if all(got is stage for got, stage in zip(made, stages, strict=True)):
            reason = next(iter(kept.values()), "there is no convolution in them")
            raise ModelError(f"no stage of the network has a static int8 form ({reason}): take fp32, or int8 in ONNX")
        return quantised, compared(network, quantised, images, kept)


def _quantised(stage: nn.Module, inputs: list[Tensor]) -> tuple[nn.Module, str | None]:
    """The stage in int8 and None; or the stage as it was, and why."""
    try:
        traced = _without_quantised_clamps(fx.symbolic_trace(copy.deepcopy(stage)))
        leaves = PrepareCustomConfig().set_non_traceable_module_classes([FloatClamp])
        observed = prepare_fx(traced, _qconfig_mapping(), (inputs[0][:1],), leaves)
        for x in inputs:
            observed(x)
        converted = convert_fx(observed)
        converted(inputs[0])  # qnnpack refuses some ranges only when it computes with them
        return converted, None
    except Exception as error:  # FX raises whatever the code that it stumbles over does
        return stage, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def _qconfig_mapping() -> QConfigMapping:
    """qnnpack's 8-bit activations of one scale, with weights of one scale per channel, which depthwise ones need."""
    activation = HistogramObserver.with_args(reduce_range=False)
    mapping = get_default_qconfig_mapping("qnnpack")
    mapping.set_global(QConfig(activation=activation, weight=default_per_channel_weight_observer))
    return mapping


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

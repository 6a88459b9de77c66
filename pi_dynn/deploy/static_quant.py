"""Static int8: the ranges of activations are set by calibration images, not found anew for each image.

Of GFNet the matrix products of stem and blocks are quantised, and so is what they return. Stages of convolutions
go through torch's FX path, each traced on its own, so that the exits between stages stay real decisions; FX refuses
to trace what branches on values, so no branch is frozen. Heads and gates stay in fp32, and so does a stage that
cannot be traced.
"""

import copy
import warnings
from dataclasses import dataclass

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
from pi_dynn.deploy.quant_linear import FloatLinear, StaticQuantLinear
from pi_dynn.errors import ModelError
from pi_dynn.records import Record
from pi_dynn.runtime.engine_choice import relative_error
from pi_dynn.runtime.engines import using_engine

WORST_RELATIVE_ERROR = 0.30  # of the logits of an exit, as for static int8 in ONNX; what is broken is off by more
BATCH = 16


@dataclass(frozen=True)
class StaticQuantisation(Record):
    """What was quantised and what it cost, on the calibration images and for each exit, the last answer included."""

    images: int
    relative_error: list[float]
    top1_agreement: list[float]
    kept_in_fp32: dict[str, str]  # part of the network: why


def compared(
    network: EarlyExitNetwork, quantised: EarlyExitNetwork, images: Tensor, kept: dict[str, str]
) -> StaticQuantisation:
    """How far int8 is off. Raises ModelError where it answers otherwise."""
    got, wanted = (
        [torch.cat(exits) for exits in zip(*(form.forward_all(x) for x in images.split(BATCH)), strict=True)]
        for form in (quantised, network)
    )
    errors = [relative_error([a], [b]) for a, b in zip(got, wanted, strict=True)]
    agreement = [float((a.argmax(1) == b.argmax(1)).float().mean()) for a, b in zip(got, wanted, strict=True)]
    worst = max(range(len(errors)), key=errors.__getitem__)
    if not errors[worst] <= WORST_RELATIVE_ERROR:  # NaN is no parity either
        raise ModelError(
            f"static int8 is off by {errors[worst]:.0%} at exit {worst} and agrees with fp32 on "
            f"{agreement[worst]:.0%} of the calibration images: take fp32, or int8 in ONNX"
        )
    return StaticQuantisation(len(images), errors, agreement, kept)


@torch.no_grad()
def quantise_products(
    network: EarlyExitNetwork, images: Tensor, engine: str
) -> tuple[EarlyExitNetwork, StaticQuantisation]:
    """The fp32 deploy form with its products in int8 packed for `engine`, by preprocessed `images` (N, 3, H, W).

    Raises: ModelError if int8 answers otherwise than fp32.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is announced as deprecated; every supported torch has it
        ranges = _ranges(network, images)
        quantised = copy.deepcopy(network)
        for name, (given, made) in ranges.items():
            layer = quantised.get_submodule(name)
            quantised.set_submodule(name, StaticQuantLinear(layer.weight, layer.bias, engine, given, made))
        return quantised, compared(network, quantised, images, kept={})


def _ranges(network: EarlyExitNetwork, images: Tensor) -> dict[str, tuple[tuple[float, int], tuple[float, int]]]:
    """For each linear layer the ranges of what goes in and of what comes out."""
    layers = {name: module for name, module in network.named_modules() if isinstance(module, FloatLinear)}
    observers = {module: (HistogramObserver(), HistogramObserver()) for module in layers.values()}

    def look(module: FloatLinear, inputs: tuple[Tensor], output: Tensor) -> None:
        """Blocks change in place what a layer gave, so it has to be looked at as it leaves."""
        before, after = observers[module]
        before(inputs[0])
        after(output)

    hooks = [module.register_forward_hook(look) for module in observers]
    try:
        for x in images.split(BATCH):
            network.forward_all(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: tuple(_range(observer) for observer in observers[module]) for name, module in layers.items()}


def _range(observer: nn.Module) -> tuple[float, int]:
    scale, zero_point = observer.calculate_qparams()
    return float(scale), int(zero_point)


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

"""Static int8: the ranges of activations are set by calibration images, not found anew for each image.

Of GFNet the matrix products of stem and blocks are quantised, and so is what they return. Stages of convolutions
go through torch's FX path, each traced on its own, so that the exits between stages stay real decisions; FX refuses
to trace what branches on values, so no branch is frozen. The linear layers of heads, and gates, stay in fp32, and so
does a stage that cannot be traced.
"""

import copy
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.ao.nn.quantized import Conv2d as QuantisedConv
from torch.ao.quantization import (
    HistogramObserver,
    QConfig,
    QConfigMapping,
    default_per_channel_weight_observer,
    get_default_qconfig_mapping,
)
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from pi_dynn.deploy.fuse import HeadOnMaps
from pi_dynn.deploy.network import EarlyExitNetwork
from pi_dynn.deploy.quant_linear import FloatLinear, StaticQuantLinear
from pi_dynn.deploy.quantisable import FloatClamp, quantisable
from pi_dynn.deploy.rounding import PatchMoments, rounded
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
    network: EarlyExitNetwork, quantised: EarlyExitNetwork, images: Tensor, kept: dict[str, str], limit: float
) -> StaticQuantisation:
    """How far int8 is off. Raises ModelError where an exit is off by more than `limit`."""
    got, wanted = (
        [torch.cat(exits) for exits in zip(*(form.forward_all(x) for x in images.split(BATCH)), strict=True)]
        for form in (quantised, network)
    )
    errors = [relative_error([a], [b]) for a, b in zip(got, wanted, strict=True)]
    agreement = [float((a.argmax(1) == b.argmax(1)).float().mean()) for a, b in zip(got, wanted, strict=True)]
    worst = max(range(len(errors)), key=errors.__getitem__)
    if not errors[worst] <= limit:  # NaN is no parity either
        raise ModelError(
            f"static int8 is off by {errors[worst]:.0%} at exit {worst} and agrees with fp32 on "
            f"{agreement[worst]:.0%} of the calibration images: take fp32, or int8 in ONNX"
        )
    return StaticQuantisation(len(images), errors, agreement, kept)


@torch.no_grad()
def quantise_products(
    network: EarlyExitNetwork, images: Tensor, engine: str, limit: float = WORST_RELATIVE_ERROR
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
        return quantised, compared(network, quantised, images, {}, limit)


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


@torch.no_grad()
def quantise_statically(
    network: EarlyExitNetwork, images: Tensor, engine: str, limit: float = WORST_RELATIVE_ERROR
) -> tuple[EarlyExitNetwork, StaticQuantisation]:
    """The fp32 deploy form with its stages in int8 packed for `engine`, by preprocessed `images` (N, 3, H, W).

    Raises: ModelError if no stage can be traced, or if int8 answers otherwise than fp32.
    """
    quantised, kept = copy.deepcopy(network), {}
    inputs = list(images.split(BATCH))

    def part(module: nn.Module, name: str, leads_on: bool = True) -> nn.Module:
        nonlocal inputs
        made = module
        if any(isinstance(child, (nn.Conv2d, nn.Linear)) for child in module.modules()):
            made, reason = _quantised(module, inputs)
            if reason is not None:
                kept[name] = reason
        if leads_on:  # the stages after it are shown what fp32 makes of the images
            inputs = [module(x) for x in inputs]
        return made

    with using_engine(engine), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is announced as deprecated; every supported torch has it
        stages, made = [*network.stages, network.last_stage], []
        quantised.stem = part(network.stem, "stem")
        for k, stage in enumerate(stages):
            made.append(part(stage, f"stage {k}"))
            if k < len(network.heads) and isinstance(network.heads[k], HeadOnMaps):
                quantised.heads[k].maps = part(network.heads[k].maps, f"head {k}", leads_on=False)
        quantised.stages, quantised.last_stage = nn.ModuleList(made[:-1]), made[-1]
        if all(got is stage for got, stage in zip(made, stages, strict=True)):
            reason = next(iter(kept.values()), "there is no convolution in them")
            raise ModelError(f"no stage of the network has a static int8 form ({reason}): take fp32, or int8 in ONNX")
        return quantised, compared(network, quantised, images, kept, limit)


def can_be_traced(stage: nn.Module) -> bool:
    """Whether torch's FX can trace a stage, which is what static int8 of convolutions needs."""
    try:
        fx.symbolic_trace(stage)
    except Exception:  # FX raises whatever the code that it stumbles over does
        return False
    return True


def _quantised(stage: nn.Module, inputs: list[Tensor]) -> tuple[nn.Module, str | None]:
    """The stage in int8 and None; or the stage as it was, and why."""
    try:
        traced = quantisable(fx.symbolic_trace(copy.deepcopy(stage)), inputs[0][:1])
        leaves = PrepareCustomConfig().set_non_traceable_module_classes([FloatClamp])
        observed = prepare_fx(traced, _qconfig_mapping(), (inputs[0][:1],), leaves)
        moments = observe(observed, inputs)
        converted = with_rounded_weights(convert_fx(copy.deepcopy(observed)), observed, moments)
        converted(inputs[0])  # qnnpack refuses some ranges only when it computes with them
        return converted, None
    except Exception as error:  # FX raises whatever the code that it stumbles over does
        return stage, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def observe(observed: fx.GraphModule, inputs: list[Tensor]) -> dict[str, PatchMoments]:
    """Let the observers of a prepared stage see `inputs`; the moments of what each convolution reads, by its name."""
    moments = {name: PatchMoments() for name, module in observed.named_modules() if isinstance(module, nn.Conv2d)}
    hooks = [observed.get_submodule(name).register_forward_hook(seen.look) for name, seen in moments.items()]
    for x in inputs:
        observed(x)
    for hook in hooks:
        hook.remove()
    return moments


def with_rounded_weights(
    converted: fx.GraphModule, observed: fx.GraphModule, moments: dict[str, PatchMoments]
) -> fx.GraphModule:
    """`converted` with weights that compute nearly what those of `observed` did, by what its convolutions read."""
    modules = dict(converted.named_modules())
    for name, seen in moments.items():
        made = modules.get(name, modules.get(name.removesuffix(".0")))  # a convolution that fused is inside its pair
        if isinstance(made, QuantisedConv):
            scale = made.weight().q_per_channel_scales()
            weight, bias = rounded(observed.get_submodule(name), scale, seen)
            zeros = torch.zeros_like(scale, dtype=torch.int64)
            made.set_weight_bias(torch.quantize_per_channel(weight, scale, zeros, 0, torch.qint8), bias)
    return converted


def _qconfig_mapping() -> QConfigMapping:
    """qnnpack's 8-bit activations of one scale, with weights of one scale per channel, which depthwise ones need."""
    activation = HistogramObserver.with_args(reduce_range=False)
    mapping = get_default_qconfig_mapping("qnnpack")
    mapping.set_global(QConfig(activation=activation, weight=default_per_channel_weight_observer))
    return mapping

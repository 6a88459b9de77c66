"""Matrix products in static int8: every linear layer of stem and blocks with the ranges calibration images fill.

Dynamic quantising finds the range of each image while it runs; here it is known, and what a layer gives is 8 bits, too.
"""

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.ao.quantization import HistogramObserver

from pi_dynn.deploy.network import EarlyExitNetwork
from pi_dynn.deploy.quant_linear import FloatLinear, StaticQuantLinear
from pi_dynn.deploy.static_check import BATCH, StaticQuantisation, compared


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

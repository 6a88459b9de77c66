"""Setting of torch's quantised engine, and freezing of a network for its engine."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from pi_dynn.errors import EngineUnavailable

# From 2.14 on torch announces the end of TorchScript at every use; the supported versions have it.
warnings.filterwarnings("ignore", r".*torch\.jit\..* is deprecated", FutureWarning)


def frozen_forward(network: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The network with `forward` alone and all its attributes constant; the weights are shared.

    Engine, activation range and code paths are fixed once a bundle is loaded; without tests for them at every layer
    an answer of a small network takes 2 to 3 % less.
    """
    frozen: torch.jit.ScriptModule = torch.jit.freeze(network)
    return frozen


INT8_ENGINES = ("onednn", "qnnpack", "x86")
ENGINES = (*INT8_ENGINES, "fp32")


def available_engines() -> list[str]:
    """The int8 engines that this torch build lists; whether one works is shown by the self-test only."""
    return [name for name in INT8_ENGINES if name in torch.backends.quantized.supported_engines]


def exact_engines() -> list[str]:
    """The int8 engines of this torch build that add the products of convolutions exactly on this processor."""
    return [name for name in available_engines() if _adds_exactly(name)]


@cache
def _adds_exactly(engine: str) -> bool:
    """Whether a plain and a depthwise convolution of the largest numbers come out right.

    Engines add pairs of products in 16 bits, which the largest overflow: oneDNN on an x86 processor without VNNI
    instructions, FBGEMM ("x86") there too, and everywhere in depthwise convolutions of over 100 channels.
    """
    channels, largest, wanted = 128, (255.0, 127.0), 200
    with using_engine(engine), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of quantised tensors; every supported one has them
        image = torch.quantize_per_tensor(torch.full((1, channels, 3, 3), largest[0]), 1.0, 0, torch.quint8)
        for groups in (1, channels):
            weight = torch.full((channels, channels // groups, 3, 3), largest[1])
            scale = largest[0] * float(weight[0].sum()) / wanted
            weight = torch.quantize_per_tensor(weight, 1.0, 0, torch.qint8)
            try:
                packed = torch.ops.quantized.conv2d_prepack(weight, None, [1, 1], [0, 0], [1, 1], groups)
                answer = torch.ops.quantized.conv2d(image, packed, scale, 0)
            except RuntimeError:  # torch 2.13 on ARM offers an engine that only raises
                return False
            if not (answer.int_repr() == wanted).all():
                return False
    return True


@contextmanager
def using_engine(name: str) -> Iterator[None]:
    """Pack int8 weights with engine `name` in the body; the previous engine is restored after it.

    The engine matters only while weights are packed: a layer keeps the engine it was packed for.

    Raises: EngineUnavailable if this torch build lacks it.
    """
    if name not in available_engines():
        there = ", ".join([*available_engines(), "fp32"])
        raise EngineUnavailable(f"engine {name!r} is not in torch {torch.__version__}: choose from {there}")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before

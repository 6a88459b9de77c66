"""Setting of torch's quantised engine, and freezing of a network for its engine."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

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

"""The quantised engine of torch, set for a while and put back; and a network frozen for the engine it runs on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pi_dynn.errors import EngineUnavailable


def frozen_forward(network: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The network with `forward` alone, everything in it constant; the weights are shared.

    The engine, the range of its activations and the paths not taken are settled when a bundle has been loaded:
    without asking for them again at every layer an answer takes 2 to 3 % less on a small network.
    """
    frozen: torch.jit.ScriptModule = torch.jit.freeze(network)
    return frozen


INT8_ENGINES = ("onednn", "qnnpack", "x86")
ENGINES = (*INT8_ENGINES, "fp32")


def available_engines() -> list[str]:
    """Int8 engines this torch build says it has; whether one works, only a self-test shows."""
    return [name for name in INT8_ENGINES if name in torch.backends.quantized.supported_engines]


@contextmanager
def using_engine(name: str) -> Iterator[None]:
    """Pack int8 weights with engine `name` inside the block; the engine set before comes back after it.

    The engine matters only while weights are packed: a packed layer keeps the engine it was packed for.

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

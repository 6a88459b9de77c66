"""A bundle's network in TorchScript: loaded for an engine, saved, and with the methods a Session calls."""

import functools
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pi_dynn.errors import BundleError, EngineUnavailable
from pi_dynn.runtime.archive import packed, torchscript_files
from pi_dynn.runtime.bundle import Bundle, pack_files
from pi_dynn.runtime.code_check import check_files
from pi_dynn.runtime.engines import available_engines, frozen_forward, using_engine
from pi_dynn.runtime.forms import FORM_NAMES, TORCHSCRIPT
from pi_dynn.runtime.manifest import INT8_STATIC, Manifest


def load_network(bundle: Bundle, engine: str) -> torch.jit.ScriptModule:
    """The scripted network with int8 weights packed for `engine`, or computing in floats for "fp32".

    Raises: EngineUnavailable, BundleError if TorchScript cannot read it, or if its code does more than compute.
    """
    name = bundle.source or "bundle"
    if bundle.manifest.format != TORCHSCRIPT:
        raise BundleError(
            f"{name}: holds {FORM_NAMES[bundle.manifest.format]} graphs, where a TorchScript network is needed"
        )
    if bundle.manifest.precision == "fp32":
        return _load(bundle)
    if engine == "fp32" and not bundle.manifest.has_floats:
        raise EngineUnavailable(
            f"{name}: convolutions in {INT8_STATIC} cannot compute in floats; choose another engine, or export the "
            "checkpoint again with --precision fp32"
        )
    packing = available_engines()[:1] if engine == "fp32" else [engine]
    if not packing:
        raise BundleError(f"{name}: this torch has no int8 engine; use an fp32 bundle")
    _silence_deprecation_warning()
    with using_engine(packing[0]):
        network = _load(bundle)
    for layer in quantised_layers(network):
        layer.reduce_range = False
        if engine == "fp32":
            layer.weight_float = torch.ops.quantized.linear_unpack(layer.packed)[0].dequantize()
            layer.in_float = True
    return network


def _load(bundle: Bundle) -> torch.jit.ScriptModule:
    files, name = bundle.network_files(), bundle.source or "bundle"
    if not bundle.trusted:
        check_files(files, name)
    try:
        network: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(packed(files)), map_location="cpu")
        return network.eval()
    except (RuntimeError, ValueError, torch.jit.Error) as error:
        reason = str(error).strip().splitlines()[-1]
        raise BundleError(f"{name}: TorchScript cannot load it ({reason})") from error


@functools.cache
def _silence_deprecation_warning() -> None:
    """Trigger torch's one-time warning here, where it can be silenced; while loading it would reach stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.qint8)


def quantised_layers(network: torch.jit.ScriptModule) -> list[torch.jit.ScriptModule]:
    """The int8 linear layers of a loaded network, whose runtime attributes may be set."""
    layers = (module for module in network.modules() if isinstance(module, torch.jit.ScriptModule))
    return [layer for layer in layers if hasattr(layer, "reduce_range")]


def pack_bundle(network: torch.jit.ScriptModule, describe: Callable[[str], Manifest]) -> Bundle:
    """A Bundle of a scripted network; `describe(weights_sha256)` returns its Manifest."""
    saved = io.BytesIO()
    torch.jit.save(network, saved)
    return pack_files(torchscript_files(saved), describe)


class ScriptedNetwork:
    """A scripted network with the methods of `StageNetwork`: arrays or tensors in, arrays out."""

    def __init__(self, module: torch.jit.ScriptModule) -> None:
        self.module = module
        self._one_image = frozen_forward(module)

    def set_threads(self, threads: int) -> None:
        """Compute with so many threads in the thread that calls; OpenMP counts them for each of those."""
        torch.set_num_threads(threads)

    def __call__(self, x: np.ndarray | Tensor, thresholds: list[float]) -> tuple[np.ndarray, int, float]:
        """Answer one image (1, 3, H, W): logits (1, classes), exit index and score."""
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            logits, exit_index, score = self._one_image(torch.as_tensor(x), thresholds)
        return logits.numpy(), exit_index, score

    def forward_batch(
        self, x: "np.ndarray | Tensor", thresholds: list[float]
    ) -> tuple[np.ndarray, list[int], list[float]]:
        """Answer a batch (B, 3, H, W): logits (B, classes), exit index and score of each."""
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            logits, exit_index, score = self.module.forward_batch(torch.as_tensor(x), thresholds)
        return logits.numpy(), exit_index.tolist(), score.tolist()

    def forward_scored(self, x: np.ndarray | Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (B, classes) and scores (B,) of every exit, the last answer included."""
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            outputs: tuple[list[Tensor], list[Tensor]] = self.module.forward_scored(torch.as_tensor(x))
            return outputs

    def start(self, x: np.ndarray) -> Any:
        """The features before stage 0 of one image (1, 3, H, W)."""
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            return self.module.start(torch.as_tensor(x))

    def advance(self, features: Any, index: int) -> tuple[Any, np.ndarray, float]:
        """Run stage `index` (0..K) for one image: features, logits (1, classes), score."""
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            features, logits, scores = self.module.advance(features, index)
        return features, logits.numpy(), float(scores[0])

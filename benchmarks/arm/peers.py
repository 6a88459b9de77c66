"""The networks of benchmarks/arm/instructions.py as files for ONNX Runtime and ExecuTorch, in int8, full depth.

What suits torch need not suit a peer, so it is given the deploy form with either form of the global filter, and the
one that takes the fewest instructions counts.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from pi_dynn import Preprocess, build_bundle
from pi_dynn.deploy import gfnet, global_filter
from pi_dynn.deploy.builder import deploy_form
from pi_dynn.deploy.onnx import dynamic_graphs, exported_graphs, in_whole_tensors, optimised
from pi_dynn.latency.peers import lowered
from pi_dynn.runtime.onnx_network import FULL_DEPTH

FILTERS: dict[str, Callable] = {"as deployed": global_filter.deploy_filter, "one product": global_filter.FullFilter}
PEERS = ("onnxruntime", "executorch")
NAMES = {"onnxruntime": "ONNX Runtime", "executorch": "ExecuTorch"}


def onnx_file(model: nn.Module, x: Tensor) -> bytes:
    """The ONNX graph, quantised by ONNX Runtime itself."""
    labels = [str(k) for k in range(model.num_classes)]
    bundle = build_bundle(
        model, exits=[], thresholds=[], labels=labels, precision="fp32", preprocess=Preprocess(size=x.shape[-1])
    )
    whole = exported_graphs(bundle.load_network("fp32"), x)[FULL_DEPTH]
    return dynamic_graphs({FULL_DEPTH: optimised(whole)})[FULL_DEPTH].SerializeToString()


def executorch_file(model: nn.Module, x: Tensor) -> bytes:
    """The program for XNNPACK, quantised by ExecuTorch itself. Raises ImportError without executorch."""
    with torch.no_grad():
        return lowered(in_whole_tensors(deploy_form(model, [], "fp32", None)), x, "int8")


def save_peers(model: nn.Module, peer: str, folder: Path) -> list[Path]:
    """One file for each form of the global filter."""
    make_file, suffix = (onnx_file, "onnx") if peer == "onnxruntime" else (executorch_file, "pte")
    size, paths = model.image_size, []
    for form, make in FILTERS.items():
        path = folder / f"{model.name}@{size} {form}.{suffix}"
        with patch.object(gfnet, "deploy_filter", make), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # exporters warn of their own future
            path.write_bytes(make_file(model, torch.zeros(1, 3, size, size)))
        paths.append(path)
    return paths

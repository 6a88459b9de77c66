"""The networks of benchmarks/arm/instructions.py as files for ONNX Runtime and ExecuTorch, in int8, full depth.

What suits torch need not suit a peer, so it is given the deploy form with several forms of the global filter, and the
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
from pi_dynn.deploy.onnx import exported_graphs, optimised
from pi_dynn.deploy.onnx_int8 import dynamic_graphs
from pi_dynn.jobs.peer_executorch import lowered
from pi_dynn.runtime.onnx_network import FULL_DEPTH


class WithoutWrites(global_filter.SeparableFilter):
    """The separable filter in whole tensors: an exporter turns writes into parts of one into copies of all of it."""

    def __init__(self, source: nn.Module, norm: nn.LayerNorm, scale: float = 1.0) -> None:
        super().__init__(source, norm, scale)
        self.register_buffer("other", torch.stack((self.cosine_from_sine, self.sine_from_cosine), 1))
        self.constant /= (self.a * self.b) ** 0.5  # to be added to every token

    def filtered(self, x: Tensor) -> Tensor:
        C = x.shape[2]
        a, b, p, q = self.a, self.b, self.p, self.q
        y = torch.mm(self.rows, x.view(a, b * C)).view(2 * p, b, C).transpose(0, 1)
        y = torch.mm(self.columns, y.reshape(b, 2 * p * C)).view(2, q, 2, p, C)
        partner = torch.cat((y[1:], y[:1]))
        second = y * self.own[1] + partner * self.other[1]
        second = torch.cat((second[:, :, 1:], second[:, :, :1]), 2)
        z = y * self.own[0] + partner * self.other[0] + second
        z = torch.mm(self.columns_back, z.view(2 * q, 2 * p * C)).view(b, 2 * p, C).transpose(0, 1)
        z = torch.mm(self.rows_back, z.reshape(2 * p, b * C)).view(1, a * b, C)
        return z + self.constant


FILTERS: dict[str, Callable] = {
    "as deployed": global_filter.deploy_filter,
    "without writes": WithoutWrites,
    "one product": global_filter.FullFilter,
}
# ExecuTorch turns a write into a part of a tensor into a dozen operators of its slow portable library.
PEERS = {"onnxruntime": tuple(FILTERS), "executorch": ("without writes", "one product")}
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
        return lowered(deploy_form(model, [], "fp32", None), x, "int8")


def save_peers(model: nn.Module, peer: str, folder: Path) -> list[Path]:
    """One file for each form of the global filter that `peer` is given."""
    make_file, suffix = (onnx_file, "onnx") if peer == "onnxruntime" else (executorch_file, "pte")
    size, paths = model.image_size, []
    for form in PEERS[peer]:
        path = folder / f"{model.name}@{size} {form}.{suffix}"
        with patch.object(gfnet, "deploy_filter", FILTERS[form]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # exporters warn of their own future
            path.write_bytes(make_file(model, torch.zeros(1, 3, size, size)))
        paths.append(path)
    return paths

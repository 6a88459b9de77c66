"""Code in a bundle computes, and does nothing else: what torch would run is refused before torch sees it."""

import ast
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pi_dynn.errors import BundleError
from pi_dynn.runtime.archive import MANIFEST_FILE, plain_files
from pi_dynn.runtime.bundle import Bundle, load_bundle, pack_files
from pi_dynn.runtime.code_check import _parsed, complaint_about
from pi_dynn.runtime.torchscript import pack_bundle


class Reads(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_file("/etc/hostname", False, 8, dtype=torch.uint8)


class Saves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "taken")
        return x


class LoopsForEver(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while bool(x.numel() > 0):
            x = x + 1
        return x


class Counts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(x.numel() * 1_000_000):
            x = x + 1
        return x


class AsksForMuch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(1 << 42)


class Prints(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print("hello")
        return x


def bundle_of(module: nn.Module, tiny_bundle: Bundle) -> Bundle:
    return pack_bundle(
        torch.jit.script(module), lambda digest: replace(tiny_bundle.manifest, precision="fp32", weights_sha256=digest)
    )


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Reads(), "calls the operator 'torch.from_file'"),
        (Saves(), "calls the operator 'torch.save'"),
        (LoopsForEver(), "uses While"),
        (Counts(), "loops over range"),
        (AsksForMuch(), "holds the number 4398046511104"),
        (Prints(), "calls 'print'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_bundle_that_does_more_than_compute_is_refused_by_name(tiny_bundle, tmp_path, module, reason):
    bundle = bundle_of(module, tiny_bundle)
    with pytest.raises(BundleError, match=reason) as caught:
        bundle.load_network("fp32")
    assert "--trust" in str(caught.value) and "\n" not in str(caught.value)
    bundle.save(tmp_path / "net.pt")
    assert load_bundle(tmp_path / "net.pt", trust=True).load_network("fp32") is not None


def test_trust_does_not_pass_to_what_is_made_of_a_bundle(tiny_bundle):
    made = bundle_of(Reads(), tiny_bundle).with_manifest(notes={"renamed": True})
    with pytest.raises(BundleError, match="from_file"):
        made.load_network("fp32")


def test_a_file_no_network_needs_is_refused(tiny_bundle):
    files = plain_files(tiny_bundle.data)
    del files[MANIFEST_FILE]
    manifest = tiny_bundle.manifest
    made = pack_files(files | {"code/run.sh": b""}, lambda digest: replace(manifest, weights_sha256=digest))
    with pytest.raises(BundleError, match=r"holds 'code/run.sh'"):
        made.load_network("qnnpack")
    del files["constants.pkl"]
    made = pack_files(files, lambda digest: replace(manifest, weights_sha256=digest))
    with pytest.raises(BundleError, match="no TorchScript archive"):
        made.load_network("qnnpack")


BODY = "class A(Module):\n  def forward(self: __torch__.A, x: Tensor) -> Tensor:\n    {}\n    return x\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("y = torch", "hands on 'torch'"),
        ("y = ops", "hands on 'ops'"),
        ("y = torch.from_file", "torch.from_file"),
        ("y = torch . from_file (x)", "torch.from_file"),
        ("y = (torch).from_file(x)", "torch.from_file"),
        ("y = ops.aten.from_file(x)", "ops.aten.from_file"),
        ("y = ops.image.read_file(x)", "ops.image.read_file"),
        ("y = ops.prim.fork(x)", "ops.prim.fork"),
        ("y = torch.add(x, x)  # torch.save", "comments"),
        ("y = torch.add(x, x)\r", "control characters"),
        ("y = torch.classes.profiling.Recorder()", "torch.classes.profiling.Recorder"),
        ("y : __torch__.torch.classes.profiling.Recorder = x", "classes.profiling.Recorder"),
        ("y = __torch__.torch.classes.profiling", "classes.profiling"),
        ("y = eval(x)", "calls 'eval'"),
        ("f = print\n    y = f(x)", "calls 'print'"),
        ("y = lambda: x", "uses Lambda"),
        ("import os", "uses Import"),
        ("y = [z for z in x]", "uses ListComp"),
        ("for i in range(torch.mul(torch.len(x), 100)):\n      pass", "loops over"),
        ("y = torch.ones([1099511627776])", "the number 1099511627776"),
        ("y = (", "cannot be read"),
        ("y = '\u00e9'", "cannot be read"),
    ],
)
def test_what_is_refused(line, reason):
    assert reason in (complaint_about(BODY.format(line).encode()) or "nothing")


@pytest.mark.parametrize(
    "line",
    [
        "y = torch.add_(x, torch.conv2d(x, x))",
        "y = torch.slice(x, 0, 0, 9223372036854775807)",
        "y = torch.select(x, 0, -9223372036854775808)",
        "for i in range(torch.len(x)):\n      pass",
        "f = __torch__.pi_dynn.deploy.network.logistic\n    y = f(x)",
        "y = ops.quantized.linear_dynamic(x, __torch__.torch.classes.quantized.LinearPackedParamsBase)",
    ],
)
def test_what_networks_do_passes(line):
    assert complaint_about(BODY.format(line).encode()) is None


def test_a_file_that_python_failed_on_is_parsed_again(monkeypatch):
    """CPython up to 3.12 may end in a SystemError beside other threads."""
    tries, parse = [], ast.parse

    def fails_twice(text):
        tries.append(text)
        if len(tries) < 3:
            raise SystemError("AST constructor recursion depth mismatch")
        return parse(text)

    monkeypatch.setattr("pi_dynn.runtime.code_check.ast.parse", fails_twice)
    assert isinstance(_parsed("x = 1"), ast.Module) and len(tries) == 3

"""torchvision with and without its compiled extension."""

import subprocess
import sys

import pytest
import torch

from pi_dynn.data import torchvision_ops


def test_transforms_datasets_and_models_work():
    import torchvision.datasets
    import torchvision.models

    assert torchvision is torchvision_ops.torchvision
    assert torchvision.datasets.ImageFolder.__name__ == "ImageFolder"
    flipped = torchvision.transforms.v2.RandomHorizontalFlip(p=1.0)(torch.arange(3.0).reshape(1, 1, 3))
    assert flipped.flatten().tolist() == [2.0, 1.0, 0.0]
    assert torchvision.models.mobilenet_v3_small(num_classes=2).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


@pytest.mark.parametrize("loads", [True, False])
def test_schemas_are_declared_only_when_the_extension_is_missing(loads):
    """In a fresh process, since torchvision is imported once."""
    really_loads = torchvision_ops.extension_loads()
    if really_loads and not loads:
        pytest.skip("the extension is not missing here")
    program = f"""
import sys, importlib
import torch
import pi_dynn.data
calls = []
import importlib.util
spec = importlib.util.find_spec("pi_dynn.data.torchvision_ops")
source = open(spec.origin).read().replace("torchvision = import_torchvision()", "")
module = type(sys)("guard")
exec(compile(source, spec.origin, "exec"), module.__dict__)
module.extension_loads = lambda: {loads}
declare = module.declare_missing_schemas
module.declare_missing_schemas = lambda: calls.append(declare()) or calls[-1]
try:
    module.import_torchvision()
    imported = True
except RuntimeError:
    imported = False
print(calls, imported)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    if loads:
        # Told that the extension is there, nothing is declared; the import then works exactly if it is.
        assert result.stdout.strip() == f"[] {really_loads}"
    else:
        assert result.stdout.strip() == "[['nms', 'qnms']] True"


def test_missing_torchvision(monkeypatch):
    monkeypatch.setattr(torchvision_ops.importlib.util, "find_spec", lambda name: None)
    assert torchvision_ops.extension_loads() is False

"""Fused networks as their authors publish them: scripted, without a card."""

import pytest
import torch
from torch import nn

from pi_dynn.deploy.export import ExportSettings, export_checkpoint
from pi_dynn.deploy.fuse import fuse_norms
from pi_dynn.errors import CheckpointError
from pi_dynn.models import registry
from tests.networks import tiny_chain

GIVEN = {"image_size": 64, "precision": "fp32"}


@pytest.fixture(params=["recnext", "recnext_share_channel", "lsnet"])
def published(request, monkeypatch, tmp_path):
    """A fused file, and the network before it was fused."""
    monkeypatch.setitem(registry._BUILDERS, "tiny", lambda **given: tiny_chain(request.param, **plain(given)))
    model = tiny_chain(request.param, num_classes=7)
    torch.jit.script(fuse_norms(model)).save(tmp_path / "tiny_fused.pt")
    return tmp_path / "tiny_fused.pt", model


def plain(given: dict) -> dict:
    return {key: given[key] for key in ("num_classes", "image_size", "exits")}


@torch.inference_mode()
def test_a_fused_file_becomes_a_bundle_with_its_answers(published):
    path, model = published
    bundle = export_checkpoint(path, ExportSettings(model="tiny", **GIVEN))
    assert bundle.manifest.labels == [str(i) for i in range(7)]
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(bundle.load_network("fp32").forward_all(x)[-1], model(x), rtol=1e-3, atol=1e-4)


def test_a_fused_file_of_something_else_is_refused(published, tmp_path):
    path, _ = published
    with pytest.raises(CheckpointError, match="does not tell which: pass --model and --image-size"):
        export_checkpoint(path, ExportSettings())
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"does not fit a fused tiny: missing: .* unexpected: bias, weight"):
        export_checkpoint(tmp_path / "other.pt", ExportSettings(model="tiny", **GIVEN))

"""Recorded cases of RecNeXt and LSNet, as trained and with norms folded."""

from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from pi_dynn.deploy.fuse import fuse_norms
from pi_dynn.models import create_model

NAMES = ["recnext_t", "recnext_t_share_channel", "lsnet_t"]
ATOL = 2e-5  # float32 costs the public code 3e-6 here, a tanh instead of an exact GELU 8e-4


@pytest.fixture(scope="module", params=NAMES)
def case(request, reference):
    """A recorded case, the network that is filled like it, and its input."""
    case = reference.load_case(f"{request.param}_224_1000")
    model = create_model(request.param, num_classes=1000, image_size=224).eval()
    reference.fill(model, **case["fill"])
    return SimpleNamespace(expected=case, model=model, x=reference.case_input(case))


def close(found, expected):
    assert_close(found, torch.tensor(expected), rtol=0, atol=ATOL)


def shapes(entries):
    return {key: shape for key, shape, *_ in entries}


def shapes_of(model):
    return {key: list(value.shape) for key, value in model.state_dict().items()}


def test_keys_shapes_and_fill(case, reference):
    assert shapes_of(case.model) == shapes(case.expected["state_dict"])
    assert sum(p.numel() for p in case.model.parameters()) == case.expected["parameters"]
    keys = [key for key, *_ in case.expected["state_dict"]]
    assert reference.digest(case.model, keys) == case.expected["sha256"]


@torch.inference_mode()
def test_logits(case):
    close(case.model(case.x), case.expected["logits"])


@torch.inference_mode()
def test_norms_folded_as_published(case):
    fused = fuse_norms(case.model)
    assert shapes_of(fused) == shapes(case.expected["fused_state_dict"])
    assert sum(p.numel() for p in fused.parameters()) == case.expected["fused_parameters"]
    close(fused(case.x), case.expected["fused_logits"])

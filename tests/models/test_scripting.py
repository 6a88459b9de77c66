"""The training form can be scripted, saved and loaded again, and answers the same."""

import io

import pytest
import torch
from torch.testing import assert_close

from pi_dynn.models import create_model
from pi_dynn.models.dft import filters_as_matrices

FORMS = [
    {},
    {"exits": [3, 7]},
    {"distilled": True, "exits": [3, 7]},
    {"distilled": True, "exits": [3, 7], "exit_heads": "cls+dist"},
]


def scripted_again(model):
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(model), stream)
    stream.seek(0)
    return torch.jit.load(stream)


@pytest.mark.parametrize(("form", "matrices"), [*((form, False) for form in FORMS), (FORMS[1], True), (FORMS[3], True)])
def test_scripted_form_agrees(tiny, form, matrices):
    model = tiny(**form)
    if matrices:
        filters_as_matrices(model)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert_close(scripted_again(model)(x), model(x), rtol=1e-5, atol=1e-6)


def test_scripted_pyramid_agrees(tiny_pyramid):
    model = tiny_pyramid(exits="all")
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert_close(scripted_again(model)(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gfnet_12_192", "gfnet_s", "gfnet_h_ti"])
def test_named_networks_script_in_training_mode(name):
    """Drop path included. The other names differ in numbers only."""
    with torch.device("meta"):
        model = create_model(name, num_classes=3, image_size=32)
    assert torch.jit.script(model.train()).training


def test_a_wrong_image_size_is_an_error_in_both_forms(tiny):
    model = tiny()
    with pytest.raises(ValueError, match=r"expected images \(B, 3, 32, 32\), got \[1, 3, 64, 64\]"):
        model(torch.zeros(1, 3, 64, 64))
    with pytest.raises(torch.jit.Error, match="expected images"):
        torch.jit.script(model)(torch.zeros(1, 3, 64, 64))

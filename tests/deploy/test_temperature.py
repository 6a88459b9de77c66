"""Folding temperatures divides logits and leaves the exits alone."""

import pytest
import torch

from pi_dynn.deploy.builder import deploy_form, script_and_freeze
from pi_dynn.deploy.calibrated import fold_temperatures
from pi_dynn.errors import ModelError

TEMPERATURES = [0.5, 1.3, 2.0, 0.8]


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_logits_are_divided_and_scores_stay(tiny_model, images):
    plain, folded = (deploy_form(tiny_model, [1, 4, 8], "fp32", None) for _ in range(2))
    fold_temperatures(folded, TEMPERATURES)
    logits, scores = plain.forward_scored(images)
    for network in (folded, script_and_freeze(folded)):
        divided, kept = network.forward_scored(images)
        for before, after, temperature in zip(logits, divided, TEMPERATURES, strict=True):
            torch.testing.assert_close(after, before / temperature, rtol=1e-4, atol=1e-5)
        for before, after in zip(scores, kept, strict=True):
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperatures", [[1.0], [1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, float("nan")]])
def test_temperatures_that_do_not_fit(tiny_model, temperatures):
    network = deploy_form(tiny_model, [1, 4, 8], "fp32", None)
    with pytest.raises(ModelError, match="4 answers need as many positive temperatures"):
        fold_temperatures(network, temperatures)
    network.last_head = torch.nn.Identity()
    with pytest.raises(ModelError, match="only into heads that end in a linear layer"):
        fold_temperatures(network, [1.0] * 4)

"""The published exit rule with its sign error: unsure images leave, and accuracy falls."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from benchmarks.published.inverted_entropy import InvertedEntropyGate, inverted_points, inverted_thresholds
from pi_dynn.calibrate.outcomes import ExitOutcomes
from pi_dynn.calibrate.percentile import percentile_points
from pi_dynn.exits.scores import EntropyGate
from pi_dynn.models import create_model
from tests.calibrate.synthetic import synthetic_outcomes


def entropy(logits):
    return torch.distributions.Categorical(logits=logits.double()).entropy()


def test_it_is_one_less_the_right_score():
    logits = 2 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    right, wrong = (torch.sigmoid(gate(10)(logits).double()) for gate in (EntropyGate, InvertedEntropyGate))
    assert_close(wrong, 1 - right)


@pytest.mark.parametrize("cutoff", [0.05, 0.6, 1.5])
def test_the_unsure_leave(cutoff):
    logits = 2 * torch.randn(200, 10, generator=torch.Generator().manual_seed(1))
    leaves = torch.sigmoid(InvertedEntropyGate(10)(logits).double()) >= cutoff / math.log(10)
    assert torch.equal(leaves, entropy(logits) >= cutoff)


def test_extreme_logits_give_finite_values_and_slopes():
    logits = torch.tensor([[0.0, 0.0, 0.0], [1e4, 0.0, 0.0], [1e-20, 0.0, 0.0]], requires_grad=True)
    value = InvertedEntropyGate(3)(logits)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(logits.grad).all()


def test_as_the_gate_of_a_network():
    model = create_model("branchynet", num_classes=10, image_size=32, exits=[0]).eval()
    model.gates[0] = InvertedEntropyGate(10)
    with torch.inference_mode():
        (_, logits, score), _ = model.forward_exits(torch.randn(2, 3, 32, 32))
    assert_close(score, entropy(logits).float() / math.log(10), rtol=0, atol=1e-5)


def test_the_published_index():
    # 5,000 images and a desired accuracy of 0.8 take the entropy at place 1001 from below.
    entropies = np.arange(5000.0)[::-1]
    assert inverted_thresholds([entropies], [np.zeros(5000)], 0.8) == [pytest.approx(1001.0)]
    assert inverted_thresholds([entropies], [np.ones(5000)], 0.8) == [pytest.approx(0.0)]


def test_the_inversion_lets_the_unsure_go_and_costs_accuracy():
    outcomes = synthetic_outcomes(4000)
    right = outcomes.right.copy()
    right[1:] = True  # only the first exit errs
    rightly = ExitOutcomes(outcomes.scores, right, outcomes.costs)
    inverted = ExitOutcomes(1.0 - outcomes.scores, right, outcomes.costs)
    surest, unsure = percentile_points(rightly, [0.7])[0], inverted_points(inverted, [0.7])[0]
    assert surest.exit_rates[0] == pytest.approx(unsure.exit_rates[0], abs=1e-3)
    assert surest.accuracy > unsure.accuracy + 0.1

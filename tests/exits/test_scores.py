"""The entropy gate: its value, its sign, its limits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from pi_dynn.exits.scores import EntropyGate, MarginGate, MaxProbabilityGate, score_at


def entropy(logits):
    return torch.distributions.Categorical(logits=logits.double()).entropy()


@settings(max_examples=50)
@given(st.integers(2, 30), st.floats(0.01, 8.0), st.integers(0, 2**31))
def test_score_is_one_less_the_share_of_the_greatest_entropy(classes, spread, seed):
    logits = spread * torch.randn(5, classes, generator=torch.Generator().manual_seed(seed))
    score = torch.sigmoid(EntropyGate(classes)(logits).double())
    assert_close(score, score_at(entropy(logits), classes), rtol=0, atol=1e-5)


def test_sure_answers_score_high_and_unsure_ones_low():
    logits = torch.tensor([[20.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.0, 0.0]])
    score = torch.sigmoid(EntropyGate(3)(logits))
    assert score[0] > 0.999
    assert score[3] < 1e-6
    assert torch.equal(score, score.sort(descending=True).values)


@pytest.mark.parametrize("cutoff", [0.05, 0.6, 1.5])
def test_a_cutoff_in_nats_is_the_threshold_that_lets_the_same_samples_leave(cutoff):
    logits = 2 * torch.randn(200, 10, generator=torch.Generator().manual_seed(1))
    leaves = torch.sigmoid(EntropyGate(10)(logits).double()) >= score_at(cutoff, 10)
    assert torch.equal(leaves, entropy(logits) <= cutoff)


def test_extreme_logits_give_finite_values_and_slopes():
    logits = torch.tensor([[0.0, 0.0, 0.0], [1e4, 0.0, 0.0], [1e-20, 0.0, 0.0]], requires_grad=True)
    value = EntropyGate(3)(logits)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(logits.grad).all()


def test_scripted_equals_eager():
    gate, logits = EntropyGate(4), torch.randn(3, 4)
    assert_close(torch.jit.script(gate)(logits), gate(logits))
    assert not gate.state_dict()


@pytest.mark.parametrize(
    ("gate", "score_of"),
    [
        (MaxProbabilityGate, lambda top: top[:, 0]),
        (MarginGate, lambda top: top[:, 0] - top[:, 1]),
    ],
)
def test_scores_of_probabilities_are_what_they_say(gate, score_of):
    logits = 2 * torch.randn(50, 6, generator=torch.Generator().manual_seed(2))
    top = torch.softmax(logits.double(), 1).sort(descending=True).values
    assert_close(torch.sigmoid(gate()(logits).double()), score_of(top), rtol=0, atol=1e-6)

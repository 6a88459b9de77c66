import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from pi_dynn.exits.gate import LearnableUncertaintyGate, uncertainty_features

logit_vectors = (
    st.integers(2, 50).flatmap(lambda n: arrays("float64", (3, n), elements=st.floats(-30, 30))).map(torch.from_numpy)
)


@pytest.mark.parametrize("classes", [10, 21, 45])
def test_agrees_with_the_reference_case(reference, classes):
    case = reference.load_case(f"gate_{classes}")
    gate = LearnableUncertaintyGate()
    assert [[key, list(value.shape)] for key, value in gate.state_dict().items()] == case["state_dict"]
    reference.fill(gate)
    assert reference.digest(gate, [key for key, _ in case["state_dict"]]) == case["sha256"]
    logits = reference.case_input(case)
    close = {"rtol": 0, "atol": reference.ATOL}
    assert_close(uncertainty_features(logits), torch.tensor(case["features"]), **close)
    assert_close(gate(logits), torch.tensor(case["gate_logit"]), **close)
    assert_close(torch.sigmoid(gate(logits)), torch.tensor(case["gate"]), **close)


def test_has_five_parameters_and_scripts():
    gate = LearnableUncertaintyGate()
    assert sum(p.numel() for p in gate.parameters()) == 5
    logits = torch.randn(4, 10)
    assert_close(torch.jit.script(gate)(logits), gate(logits), rtol=0, atol=0)


@given(logit_vectors)
def test_sharpened_distribution_is_the_normalised_square(logits):
    """softmax(2z) = p^2 / sum p^2: the features use the left side, the paper writes the right one."""
    p = torch.softmax(logits, dim=-1)
    q = p**2 / (p**2).sum(dim=-1, keepdim=True)
    assert_close(uncertainty_features(logits)[:, 3], torch.special.entr(q).sum(dim=-1), rtol=1e-9, atol=1e-9)


@given(logit_vectors, st.floats(-100, 100))
def test_a_shift_of_all_logits_changes_nothing(logits, shift):
    assert_close(uncertainty_features(logits + shift), uncertainty_features(logits), rtol=1e-7, atol=1e-9)


@given(logit_vectors)
def test_the_order_of_the_classes_changes_nothing(logits):
    assert_close(uncertainty_features(logits.flip(-1)), uncertainty_features(logits), rtol=1e-9, atol=1e-12)


@given(logit_vectors)
def test_features_stay_in_their_ranges(logits):
    p_max, entropy, margin, sharp_entropy = uncertainty_features(logits).unbind(1)
    classes = logits.shape[1]
    eps = 1e-9
    assert torch.all((p_max >= 1 / classes - eps) & (p_max <= 1 + eps))
    assert torch.all((margin >= -eps) & (margin <= p_max + eps))
    assert torch.all((entropy >= -eps) & (entropy <= torch.log(torch.tensor(classes, dtype=torch.float64)) + eps))
    assert torch.all((sharp_entropy >= -eps) & (sharp_entropy <= entropy + eps))


def test_certainty_leaves_no_entropy_and_no_nan():
    features = uncertainty_features(torch.tensor([[1000.0, 0.0, -1000.0]]))
    assert_close(features, torch.tensor([[1.0, 0.0, 1.0, 0.0]]), rtol=0, atol=0)


@pytest.mark.parametrize("gap", [1.0, 60.0, 1000.0])
def test_gradients_stay_finite_however_sure_the_network_is(gap):
    logits = torch.tensor([[gap, 0.0, -gap]], requires_grad=True)
    uncertainty_features(logits).sum().backward()
    assert torch.isfinite(logits.grad).all()

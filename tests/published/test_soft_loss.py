"""The published soft loss is the right one over the number of classes."""

import math

import pytest
import torch

from benchmarks.published.soft_loss import published_soft_loss

LN3 = math.log(3)


def test_it_is_the_divergence_per_number():
    student, teacher = torch.zeros(2, 2), torch.tensor([[0.0, LN3], [0.0, 0.0]])
    divergence = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)  # of the first image, 0 of the second
    assert float(published_soft_loss(student, teacher, 1.0)) == pytest.approx(divergence / 4)


def test_at_a_temperature():
    student = torch.tensor([[0.3, -1.0, 2.0]])
    p, q = torch.tensor([0.0, 2.0, 0.5]).softmax(0), (student[0] / 2).log_softmax(0)
    expected = 4 * (p * (p.log() - q)).sum() / 3
    torch.testing.assert_close(published_soft_loss(student, torch.tensor([[0.0, 4.0, 1.0]]), 2.0), expected)

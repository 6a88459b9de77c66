"""The classifier of the linear probe."""

import torch
from probe import linear_classifier


def test_classes_that_are_apart_are_told_apart():
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(120) % 3
    features = 4 * torch.randn(3, 10, generator=generator)[labels] + torch.randn(120, 10, generator=generator)
    weight, bias = linear_classifier(features, labels, 3)
    assert ((features @ weight + bias).argmax(1) == labels).float().mean() > 0.97

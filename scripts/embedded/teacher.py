"""What a convolutional network that has seen ImageNet says of each training image.

The student learns from two things: class probabilities of a linear classifier on the teacher's features, fitted
on images other than the one it judges, and the features themselves, a far richer target than a label where
images are few.

Source: Hinton et al., Distilling the knowledge in a neural network (arXiv:1503.02531); Romero et al., FitNets
(arXiv:1412.6550). EfficientNet-Lite0 and its weights: Apache-2.0, from the package of the extra `[train]`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pi_dynn.models import create_model
from pi_dynn.models.pretrained import load_pretrained

RIDGE = 0.01  # L2 penalty of the linear classifier, on standardised features


@torch.inference_mode()
def teacher_features(images: Tensor, size: int, batch_size: int = 16) -> Tensor:
    """Pooled EfficientNet-Lite0 features (N, 1280) of uint8 images (N, 3, S, S), brought to `size` px.

    Raises: PiDynnError without the package of the extra `[train]`.
    """
    network = create_model("efficientnet_lite0", num_classes=1000, image_size=224).eval()
    load_pretrained(network)
    chain = network.chain()
    *pooled, _, _ = chain.head  # all but dropout and classifier
    trunk = nn.Sequential(chain.stem, *(module for block in chain.blocks for module in block), *pooled)
    trunk.to(memory_format=torch.channels_last)
    features = []
    for part in images.split(batch_size):
        x = (part.float() - 127) / 128  # as these weights were trained
        if x.shape[-1] != size:
            x = F.interpolate(x, size=(size, size), mode="bicubic", align_corners=False, antialias=True)
        x = x.contiguous(memory_format=torch.channels_last)
        features.append(trunk(x))
    return torch.cat(features)


def standardised(features: Tensor) -> Tensor:
    """Features (N, D) with mean 0 and deviation 1 in every column."""
    return (features - features.mean(0)) / (features.std(0) + 1e-6)


def linear_classifier(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Weights (D, C) and bias (C,) of the ridge-penalised multinomial logistic regression."""
    weight = torch.zeros(features.shape[1], num_classes, requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weight + bias, labels) + RIDGE * weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def cross_fitted_probabilities(features: Tensor, labels: Tensor, num_classes: int, seed: int, folds: int = 5) -> Tensor:
    """Class probabilities (N, C) of each sample from a classifier that was fitted without it."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    probabilities = torch.empty(len(labels), num_classes)
    for held_out in order.chunk(folds):
        keep = torch.ones(len(labels), dtype=torch.bool)
        keep[held_out] = False
        weight, bias = linear_classifier(features[keep], labels[keep], num_classes)
        probabilities[held_out] = (features[held_out] @ weight + bias).softmax(-1)
    return probabilities


def principal_components(features: Tensor, components: int) -> Tensor:
    """The leading components (N, components) of the standardised features, half whitened, of mean square 1.

    Whitening by the fourth root of the variance keeps the order of importance and lets small directions count.
    """
    features = standardised(features)
    _, singular, basis = torch.linalg.svd(features, full_matrices=False)
    scores = features @ basis[:components].T / singular[:components].sqrt()
    return scores / scores.square().mean().sqrt()


def softened_labels(features: Tensor, labels: Tensor, num_classes: int, seed: int) -> Tensor:
    """Class probabilities (N, C): half the label, half what a classifier on the teacher's features says."""
    truth = F.one_hot(labels, num_classes).float()
    return (truth + cross_fitted_probabilities(standardised(features), labels, num_classes, seed)) / 2

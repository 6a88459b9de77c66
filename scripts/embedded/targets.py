"""What the student is to answer: the teacher's features, its ImageNet classes, and the label of the image's set.

Every head answers F feature components, then 1000 ImageNet classes, then the classes of all sets one after another.

Source: PCA after half whitening; softened classes, arXiv 1503.02531.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pack import Packed
from torch import Tensor

COMPONENTS = 384
IMAGENET_CLASSES = 1000
TEMPERATURE = 2.0  # at which the task's teacher is followed
FITTED_ON = 12_000  # images whose features give the components


@dataclass(frozen=True)
class Weights:
    """Of the parts of the loss."""

    features: float = 2.0  # squared error of the components, which have mean square 1
    classes: float = 0.5  # KL divergence from the teacher's ImageNet classes
    labels: float = 0.5  # cross-entropy among the classes of the image's own set
    exits: float = 0.5  # the exits' mean loss, beside the final one
    followed: float = 0.5  # KL divergence of an exit from the final answer
    task: float = 0.0  # KL divergence from what a teacher that knows the task answers
    tokens: float = 0.0  # squared error of the patches, over the variance of those of the plain network


@dataclass(frozen=True)
class Components:
    """The linear map from the teacher's features to the leading, half whitened components of mean square 1."""

    mean: Tensor  # (1280,)
    basis: Tensor  # (1280, COMPONENTS)

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) @ self.basis


def fit_components(features: Tensor, components: int = COMPONENTS) -> Components:
    """Fitted on features (N, D): standardise, keep the leading directions, divide by the root of their deviation."""
    mean, std = features.mean(0), features.std(0) + 1e-6
    standard = (features - mean) / std
    _, singular, basis = torch.linalg.svd(standard, full_matrices=False)
    basis = basis[:components].T / singular[:components].sqrt()
    scale = (standard @ basis).square().mean().sqrt()
    return Components(mean, basis / std[:, None] / scale)


def sample_features(features: list[np.ndarray], seed: int) -> Tensor:
    """Teacher features of up to FITTED_ON images drawn from all sets, small sets whole."""
    draw = np.random.default_rng(seed)
    each = FITTED_ON // len(features)
    parts = [part if len(part) <= each else part[np.sort(draw.choice(len(part), each, False))] for part in features]
    return torch.from_numpy(np.concatenate(parts)).float()


def class_offsets(sets: list[Packed]) -> list[int]:
    """Where the classes of each set begin, and after them the number of all."""
    return [0, *np.cumsum([len(data.classes) for data in sets]).tolist()]


def label_mask(sets: list[Packed]) -> Tensor:
    """True where a class (all sets) is not one of the set: (sets, classes)."""
    offsets = class_offsets(sets)
    mask = torch.ones(len(sets), offsets[-1], dtype=torch.bool)
    for number, (start, stop) in enumerate(zip(offsets, offsets[1:])):
        mask[number, start:stop] = False
    return mask


@dataclass(frozen=True)
class Targets:
    """What a batch is taught: components (B, F), teacher's logits (B, 1000), labels (B,), `foreign` (B, classes).

    `foreign` is True for classes of other sets, which are left out of the cross-entropy.
    """

    components: Tensor
    teacher: Tensor
    labels: Tensor
    foreign: Tensor

    def split(self, answer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A head's answer as components, ImageNet logits and logits among the classes of the image's own set."""
        parts = [self.components.shape[1], self.teacher.shape[1], self.foreign.shape[1]]
        components, teacher, classes = answer.float().split(parts, 1)
        return components, teacher, classes.masked_fill(self.foreign, -1e4)


def divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """KL(wanted || logits), per image; both (B, classes) logits."""
    return F.kl_div(logits.log_softmax(1), wanted.log_softmax(1), reduction="batchmean", log_target=True)


def heads_loss(heads: tuple[Tensor, ...], targets: Targets, weights: Weights) -> tuple[Tensor, dict[str, float]]:
    """The loss of one exit's or the final heads, and its parts for the log.

    Of two heads only the last, on the distillation token, learns the teacher's ImageNet classes; both learn the
    features and, as their mean is the answer, the labels.
    """
    split = [targets.split(head) for head in heads]
    features = torch.stack([F.mse_loss(components, targets.components) for components, _, _ in split]).mean()
    classes = divergence(split[-1][1], targets.teacher)
    labels = torch.stack([F.cross_entropy(answer[2], targets.labels) for answer in split]).mean()
    total = weights.features * features + weights.classes * classes + weights.labels * labels
    return total, {"features": features.item(), "classes": classes.item(), "labels": labels.item()}


def exits_loss(exits: list[Tensor], heads: tuple[Tensor, ...], targets: Targets, weights: Weights) -> Tensor:
    """The mean loss of the exits: that of a final head, and how far each is from the final answer.

    The final answer is a number here, not a part of the graph: exits follow it, it does not follow them.
    """
    final = targets.split((sum(heads) / len(heads)).detach())[2]
    losses = []
    for answer in exits:
        told, _ = heads_loss((answer,), targets, weights)
        losses.append(told + weights.followed * divergence(targets.split(answer)[2], final))
    return torch.stack(losses).mean()


def task_loss(final: Tensor, exits: list[Tensor], said: Tensor, first: int, weights: Weights) -> Tensor:
    """How far answers (B, outputs) from number `first` on are from the logits (B, classes) of the task's teacher."""
    classes = slice(first, first + said.shape[1])

    def far(answer: Tensor) -> Tensor:
        return TEMPERATURE**2 * divergence(answer[:, classes].float() / TEMPERATURE, said / TEMPERATURE)

    loss = far(final)
    return loss + weights.exits * torch.stack([far(answer) for answer in exits]).mean() if exits else loss


def tokens_loss(tokens: list[Tensor], plain: list[Tensor]) -> Tensor:
    """How far the last N of the tokens (B, T, C) after every block are from those of a plain network (B, N, C).

    The squared error over the variance of what is wanted, the mean of all blocks.
    """
    errors = [
        F.mse_loss(own[:, -wanted.shape[1] :], wanted) / (wanted - wanted.mean((0, 1))).square().mean()
        for own, wanted in zip(tokens, plain)
    ]
    return torch.stack(errors).mean()


def mixed(images: Tensor) -> Tensor:
    """Every image (B, 3, R, R) blended with another of the batch: a picture nobody has labelled, for a teacher to."""
    share = torch.rand(len(images), 1, 1, 1, device=images.device)
    return torch.lerp(images, images[torch.randperm(len(images), device=images.device)], share / 2)

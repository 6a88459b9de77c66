"""What is done to a training image at random, by name."""

import torch

from pi_dynn.data.torchvision_ops import torchvision
from pi_dynn.errors import InputError
from pi_dynn.train.images import QuarterTurn, aerial_augmentation

v2 = torchvision.transforms.v2

AUGMENTATIONS = ("randaugment", "trivial", "aerial", "crop", "none")


def augmentation(name: str, size: int, smallest_crop: float = 0.5, any_way_up: bool = False) -> torch.nn.Module:
    """A transform of uint8 (3, H, W) to uint8 (3, size, size).

    "randaugment" and "trivial" are the published policies after a random crop and a flip, "aerial" adds quarter
    turns and mild colour changes instead, "crop" is the crop and the flip alone, "none" only resizes. With
    `any_way_up` the picture is turned by quarters as well: scenes seen from above have no upright.

    Raises: InputError for an unknown name.
    Source: RandAugment, arXiv 1909.13719 (two operations of magnitude 9); TrivialAugment, arXiv 2103.10158.
    """
    if name not in AUGMENTATIONS:
        raise InputError(f"augmentation {name!r} is not known: choose from {', '.join(AUGMENTATIONS)}")
    if name == "none":
        return v2.Resize((size, size), antialias=True)
    if name == "aerial":
        return aerial_augmentation(size, smallest_crop)
    steps = [v2.RandomResizedCrop(size, scale=(smallest_crop, 1.0), antialias=True), v2.RandomHorizontalFlip()]
    if any_way_up:
        steps.append(QuarterTurn())
    if name == "randaugment":
        steps.append(v2.RandAugment(num_ops=2, magnitude=9))
    if name == "trivial":
        steps.append(v2.TrivialAugmentWide())
    return v2.Compose(steps)

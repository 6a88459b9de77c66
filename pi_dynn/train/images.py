"""Training images: decoded once into memory, augmented and mixed again in every epoch."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pi_dynn.data.folders import ImageFolder
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.data.preprocess import turned_and_flipped as turned_and_flipped
from pi_dynn.data.torchvision_ops import torchvision
from pi_dynn.errors import InputError

v2 = torchvision.transforms.v2


def decode_all(data: ImageFolder, preprocess: Preprocess) -> Tensor:
    """Every image of `data` as uint8 (N, 3, size, size). Raises InputError naming a bad file."""
    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(lambda i: preprocess.pixels(data.picture(i)), range(len(data))))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


class PicturesOnDisk:
    """The images of `data` as `decode_all` gives them, but each decoded when it is asked for."""

    def __init__(self, data: ImageFolder, preprocess: Preprocess) -> None:
        self.data, self.preprocess = data, preprocess

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.preprocess.pixels(self.data.picture(index)).copy()).permute(2, 0, 1)


def hold_images(data: ImageFolder, preprocess: Preprocess, most_bytes: int) -> Tensor | PicturesOnDisk:
    """All images decoded in memory if they take at most `most_bytes` there, else decoded at every visit."""
    if len(data) * 3 * preprocess.size**2 <= most_bytes:
        return decode_all(data, preprocess)
    return PicturesOnDisk(data, preprocess)


class QuarterTurn(torch.nn.Module):
    """Rotate by 0, 90, 180 or 270 degrees at random, for aerial images."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.rot90(image, int(torch.randint(4, ())), (-2, -1))


def aerial_augmentation(size: int, smallest_crop: float) -> torch.nn.Module:
    """Random crop to `size`, quarter turns, a flip and mild colour changes, on uint8 (3, H, W)."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(smallest_crop, 1.0), ratio=(0.8, 1.25), antialias=True),
            QuarterTurn(),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3),
        ]
    )


class AugmentedImages(Dataset):
    """Images (uint8, held or on disk) and labels, (N,) or (N, outputs); each visit augments anew and normalises."""

    def __init__(
        self, images: Tensor | PicturesOnDisk, labels: Tensor, augment: torch.nn.Module, preprocess: Preprocess
    ) -> None:
        self.images, self.labels, self.augment = images, labels, augment
        self.normalise = v2.Compose(
            [v2.ToDtype(torch.float32, scale=True), v2.Normalize(preprocess.mean, preprocess.std)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.normalise(self.augment(self.images[index])), self.labels[index]


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


class Mixing:
    """Mixes a share of the batches with mixup or cutmix, half of the time each.

    Draws from the global generator, which the engine sets at the start of every epoch. Labels (N,) become rows
    of probabilities (N, classes) where a batch is mixed.

    Source: arXiv 1710.09412, arXiv 1905.04899.
    """

    def __init__(self, num_classes: int, share: float, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0) -> None:
        self.share = share
        self.ways = (
            v2.MixUp(alpha=mixup_alpha, num_classes=num_classes),
            v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes),
        )

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, 3, H, W), y (N,) or (N, classes) -> the same, mixed or as they were."""
        if len(y) < 2 or float(torch.rand(())) >= self.share:
            return x, y
        return self.ways[int(torch.randint(2, ()))](x, y)

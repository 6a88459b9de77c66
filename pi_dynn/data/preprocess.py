"""Preprocessing of pictures to the input tensor of a network."""

import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
from PIL import Image

from pi_dynn.data.decode import decode_image, to_rgb
from pi_dynn.errors import InputError
from pi_dynn.records import Record

if TYPE_CHECKING:
    from torch import Tensor

AnyImage: TypeAlias = Union[str, Path, BytesIO, Image.Image, np.ndarray, "Tensor"]
"""A file's path, URL or content, a PIL image, uint8 pixels (H, W, 3), or ready floats (3, size, size)."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MOST_PX = 4096  # of an input's side


@dataclass(frozen=True)
class Preprocess(Record):
    """The conversion of a picture to the input of a network; part of a bundle's manifest.

    The largest centred square is cut out, its middle `crop` share (1 keeps all of it) is resized to
    `size` pixels with an antialiasing bicubic filter, and each channel becomes (value / 255 - mean) / std.
    """

    size: int
    crop: float = 1.0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        """Raises: InputError for a size, crop, mean or spread that no image can be prepared with."""
        values = (*self.mean, *self.std)
        if not 1 <= self.size <= MOST_PX or not 0.0 < self.crop <= 1.0:
            raise InputError(f"images of {self.size} px, crop {self.crop:g}: give 1 to {MOST_PX} px, crop above 0 to 1")
        if not all(map(math.isfinite, values)) or 0.0 in self.std:
            raise InputError(f"mean {self.mean} and std {self.std}: give finite ones, and no std of 0")

    def pixels(self, image: Image.Image) -> np.ndarray:
        """The pixels of an RGB picture at the input size: uint8 (size, size, 3), in one resize."""
        width, height = image.size
        side = max(1.0, min(width, height) * self.crop)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((self.size, self.size), Image.Resampling.BICUBIC, box, reducing_gap=3.0))

    def normalised(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (..., size, size, 3) to the normalised float32 (..., 3, size, size)."""
        mean, std = (255 * np.array(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        planes = np.moveaxis(pixels, -1, -3).astype(np.float32, order="C")
        planes -= mean
        planes /= std
        return planes

    def tensor(self, pixels: np.ndarray) -> "Tensor":
        """The same as a tensor."""
        import torch

        return torch.from_numpy(self.normalised(pixels))

    def __call__(self, image: "AnyImage") -> "Tensor":
        """`array` as a tensor."""
        import torch

        return torch.from_numpy(self.array(image))

    def array(self, image: "AnyImage") -> np.ndarray:
        """An image in any form to the float32 (3, size, size) input.

        Raises: InputError for a file that is no image, another type or shape, or values that are not finite.
        """
        if isinstance(image, (str, Path, BytesIO)):
            # Twice the needed resolution is enough for the resize filter; the answer hardly changes.
            return self.normalised(self.pixels(decode_image(image, draft_px=round(2 * self.size / self.crop))))
        if isinstance(image, Image.Image):
            return self.normalised(self.pixels(to_rgb(image)))
        if isinstance(image, np.ndarray):
            if image.dtype == np.float32:
                return self._ready(image)
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                raise InputError(f"expected a uint8 array (H, W, 3), got {image.dtype} {image.shape}")
            return self.normalised(self.pixels(Image.fromarray(image)))
        if hasattr(image, "is_floating_point"):  # a tensor; torch itself may not be there
            if not image.is_floating_point():
                raise InputError(f"expected a float tensor (3, {self.size}, {self.size}), got {image.dtype}")
            return self._ready(image.float().numpy(force=True))
        raise InputError(
            f"cannot classify a {type(image).__name__}: give a path, a PIL image, a uint8 array (H, W, 3) "
            f"or a float tensor or array (3, {self.size}, {self.size})"
        )

    def _ready(self, array: np.ndarray) -> np.ndarray:
        if array.shape != (3, self.size, self.size):
            raise InputError(f"expected a float tensor or array (3, {self.size}, {self.size}), got {array.shape}")
        # A sum is twelve times as fast as a test of all values, which is needed only if the sum is not finite.
        if not np.isfinite(array.sum()) and not np.isfinite(array).all():
            raise InputError("the input tensor holds NaN or infinite values; check how it was normalised")
        return array


def turned_and_flipped(images: "Tensor") -> "Tensor":
    """The eight views of each square image, (N, 3, S, S) -> (8N, 3, S, S): view by view, each N in order."""
    import torch

    turns = [torch.rot90(images, quarter, (-2, -1)) for quarter in range(4)]
    return torch.cat([*turns, *(turn.flip(-1) for turn in turns)])

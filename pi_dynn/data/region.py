"""The part of a picture that is looked at."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pi_dynn.data.decode import decode_image
from pi_dynn.errors import InputError


@dataclass(frozen=True)
class Region:
    """A rectangle of a picture: left edge, top edge, width and height; shares of the picture if none is above 1.

    Otherwise they are pixels. Raises: InputError for one that is empty or begins outside.
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        values = (self.x, self.y, self.width, self.height)
        if not all(map(math.isfinite, values)) or min(values) < 0 or 0 in (self.width, self.height):
            raise InputError(f"the region {self} is empty; give X,Y,W,H such as 0.25,0.5,0.5,0.5, or pixels")
        if max(values) <= 1.0 and max(self.x + self.width, self.y + self.height) > 1.0 + 1e-9:
            raise InputError(f"the region {self} reaches beyond the picture, whose shares end at 1")

    def __str__(self) -> str:
        return ",".join(f"{value:g}" for value in (self.x, self.y, self.width, self.height))

    def of(self, image: np.ndarray | Path) -> np.ndarray:
        """That part of uint8 pixels (H, W, 3), or of an image file. Raises: InputError if it lies outside."""
        pixels = np.asarray(decode_image(image)) if isinstance(image, Path) else image
        height, width = pixels.shape[:2]
        shares = max(self.x, self.y, self.width, self.height) <= 1.0
        across, down = (width, height) if shares else (1, 1)
        left, right = round(self.x * across), round((self.x + self.width) * across)
        top, bottom = round(self.y * down), round((self.y + self.height) * down)
        part = pixels[top:bottom, left:right]
        if 0 in part.shape:
            raise InputError(f"the region {self} holds no pixel of a picture of {width} x {height}")
        return part

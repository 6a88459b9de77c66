"""Decoding of image files to upright 8-bit RGB, with one-line errors."""

import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pi_dynn.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

# Pillow warns from this size on; pi_dynn refuses, because a Pi has little memory.
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def decode_image(source: str | Path | BinaryIO, draft_px: int | None = None) -> Image.Image:
    """The first frame of an image file or of one in memory, rotated by its EXIF tag, as 8-bit RGB.

    A JPEG is decoded at the smallest of its built-in scales (1, 1/2, 1/4, 1/8) that keeps the shorter
    side at `draft_px` or more, which saves most of the work on a large photograph.

    Raises: InputError that names the file, for anything that is not a whole, decodable image.
    """
    path = source if isinstance(source, str | Path) else "the image"
    try:
        with Image.open(source) as image:
            _check_size(path, image)
            if draft_px is not None:
                _draft(image, draft_px)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder, not an image") from error
    except PermissionError as error:
        raise InputError(f"{path}: not readable by this user; check its permissions") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: {_what_it_is(source)}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {error}; refused as a decompression bomb") from error
    # On damaged files Pillow's decoders raise errors of many types.
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, IndexError, KeyError) as error:
        raise InputError(f"{path}: damaged or truncated image ({error}); copy it again") from error


def _check_size(path: str | Path, image: Image.Image) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(f"{path}: the image is {width} x {height} pixels, so there is nothing to classify")
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{path}: {width} x {height} pixels exceed the limit of {MAX_PIXELS:,}; "
            "refused as a decompression bomb, scale it down first"
        )


def _draft(image: Image.Image, draft_px: int) -> None:
    """Set the scale of a JPEG decoder; no-op for other formats."""
    scale = draft_px / min(image.size)
    image.draft("RGB", (round(image.width * scale), round(image.height * scale)))


def _what_it_is(source: str | Path | BinaryIO) -> str:
    size = Path(source).stat().st_size if isinstance(source, str | Path) else source.seek(0, os.SEEK_END)
    if size == 0:
        return "the file is empty"
    return "not an image in a format Pillow knows; only its name may look like one"


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB from any mode: 16-bit grey is scaled, transparency shown on white.

    Raises: InputError for a mode with no meaning as a picture.
    """
    if image.mode == "RGB":
        return image
    if image.mode in _DEEP_GREY:
        # `convert` clips 16-bit grey at 255 and would return a white picture.
        grey = np.asarray(image).astype(np.float64) / 257.0
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        grey = np.asarray(image)
        if not np.isfinite(grey).all():
            raise InputError("the floating-point image holds values that are not finite")
        grey = grey * 255.0 if grey.min() >= 0.0 and grey.max() <= 1.0 else grey
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")

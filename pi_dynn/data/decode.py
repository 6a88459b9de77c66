"""Decoding of image files to upright 8-bit RGB, with one-line errors."""

import functools
import os
import warnings
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from pi_dynn.errors import InputError, need_extra

SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".webp",
        ".ppm",
        ".pgm",
        ".avif",
        ".heic",
        ".heif",
        ".hif",
    }
)

# Pillow warns from this size on; pi_dynn refuses, because a Pi has little memory.
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485
MAX_PIXELS_VARIABLE = "PI_DYNN_MAX_PIXELS"
# A JPEG that is scaled while it is decoded needs time for all its pixels, memory only for the scaled ones.
_MAX_SCALED_RATIO = 8
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N")
# The major brands of ISO media files that are pictures, bytes 8 to 12 (ISO/IEC 23008-12, annex B; AVIF 1.1).
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


class ImageBytes(BytesIO):
    """The content of an image file in memory, with the name it has in error messages."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def is_url(source: object) -> bool:
    """Whether an image is named by a URL instead of a path."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def pixel_limit() -> int:
    """The most pixels of a decoded picture: PI_DYNN_MAX_PIXELS, or what Pillow thinks safe.

    Raises: InputError for a value that is no number of pixels.
    """
    given = os.environ.get(MAX_PIXELS_VARIABLE)
    if given is None:
        return MAX_PIXELS
    try:
        limit = int(given)
    except ValueError:
        limit = 0
    if limit < 1:
        raise InputError(f"{MAX_PIXELS_VARIABLE}={given}: give a number of pixels, such as 200000000")
    if limit > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # Pillow itself refuses from twice its limit on
    return limit


def decode_image(source: str | Path | BinaryIO, draft_px: int | None = None) -> Image.Image:
    """The first frame of an image file or of one in memory, rotated by its EXIF tag, as 8-bit RGB.

    A string that begins with http:// or https:// is fetched. A JPEG is decoded at the smallest of its built-in scales
    (1, 1/2, 1/4, 1/8) that keeps the shorter side at `draft_px` or more, which saves most of the work on a large
    photograph; the limit of pixels holds for what is decoded.

    Raises: InputError that names the file, for anything that is not a whole, decodable image.
    """
    if isinstance(source, str) and is_url(source):
        from pi_dynn.data.remote import fetch_image

        source = fetch_image(source)
    path = source if isinstance(source, str | Path) else getattr(source, "name", "the image")
    try:
        limit = pixel_limit()
        with _opened(path, source) as image:
            _scale_and_check(path, image, draft_px, limit)
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
        raise InputError(f"{path}: {error} Refused; {_HOW_TO_RAISE}") from error
    # On damaged files Pillow's decoders raise errors of many types.
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, IndexError, KeyError, RuntimeError) as error:
        raise InputError(
            f"{path}: damaged or truncated image ({' '.join(str(error).split())}); copy it again"
        ) from error


_HOW_TO_RAISE = f"scale it down, or allow more with {MAX_PIXELS_VARIABLE}=PIXELS"


def _opened(path: str | Path, source: str | Path | BinaryIO) -> Image.Image:
    """The image with its header read; HEIC by pillow-heif, imported when it is needed.

    Raises: InputError without pillow-heif or for a pipe, and whatever Pillow raises.
    """
    if isinstance(source, str | Path) and Path(source).is_fifo():
        raise InputError(f"{path}: is a pipe, which may never end; give a file, or an image on standard input with -")
    try:
        return Image.open(source)
    except UnidentifiedImageError:
        if _brand(source) not in _HEIF_BRANDS:
            raise
        with need_extra("heic", f"{path}: a HEIC picture"):
            _register_heif()
        return Image.open(source)
    except Image.DecompressionBombError:
        # Pillow checks the size in the header; a JPEG may be smaller after scaling, so it is checked later.
        if not isinstance(source, str | Path):
            source.seek(0)
        try:
            return JpegImageFile(source)
        except SyntaxError:
            pass
        raise


@functools.cache
def _register_heif() -> None:
    """Let Pillow read HEIC. Raises: ImportError without pillow-heif."""
    from pillow_heif import register_heif_opener

    register_heif_opener()


def _brand(source: str | Path | BinaryIO) -> bytes:
    """The major brand of an ISO media file; nothing for any other file."""
    if isinstance(source, str | Path):
        with Path(source).open("rb") as stream:
            head = stream.read(12)
    else:
        source.seek(0)
        head = source.read(12)
    return head[8:] if head[4:8] == b"ftyp" else b""


def _scale_and_check(path: str | Path, image: Image.Image, draft_px: int | None, limit: int) -> None:
    """Set the scale of a JPEG for `draft_px`; other formats have none.

    Raises: InputError for an image without pixels, or with more than `limit` as it will be decoded.
    """
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(f"{path}: the image is {width} x {height} pixels, so there is nothing to classify")
    if draft_px is not None:
        image.draft("RGB", (draft_px, draft_px))  # of both sides, so the shorter one decides
    pixels = image.width * image.height
    if image.info.get("progressive"):
        pixels = width * height  # a progressive JPEG is held whole before it is scaled
    if pixels > limit or width * height > _MAX_SCALED_RATIO * limit:
        raise InputError(
            f"{path}: {width} x {height} pixels exceed the limit of {limit:,}; "
            f"refused as a decompression bomb: {_HOW_TO_RAISE}"
        )


def _what_it_is(source: str | Path | BinaryIO) -> str:
    size = Path(source).stat().st_size if isinstance(source, str | Path) else source.seek(0, os.SEEK_END)
    if size == 0:
        return "the file is empty"
    if _brand(source) in _AVIF_BRANDS:
        return "an AVIF picture, which needs Pillow 11.3 or newer: pip install --upgrade pillow"
    return "not an image in a format that is known here"


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

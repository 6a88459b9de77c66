"""The images behind the names on a command line."""

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from pi_dynn.data.decode import ImageBytes, is_url
from pi_dynn.data.folders import walk_readable
from pi_dynn.errors import InputError

NamedImage: TypeAlias = tuple[str, str | ImageBytes | InputError]
"""The name of an image, and its path, URL or content, or the error in its place."""
STDIN = "-"
_MAX_BYTES = 256 * 1024 * 1024  # of an image on stdin
_HEAD_BYTES = 32


def named_images(names: Iterable[str], listing: Iterable[str] = ()) -> Iterator[NamedImage]:
    """Images behind files, folders (recursive), glob patterns, http(s) URLs, and `-` for what `listing` holds.

    `listing` holds one path or URL a line, or the bytes of one image if it is a stream such as `sys.stdin`. Images
    are listed lazily, so a folder of a hundred thousand needs no memory; a URL is fetched when it is decoded.
    """
    for name in names:
        if name == STDIN:
            yield from _listed(listing)
        elif is_url(name):
            yield name, name
        else:
            yield from _behind(name)


def begins_an_image(head: bytes) -> bool:
    """Whether bytes begin an image instead of a list of paths.

    No path holds a zero byte or begins like a JPEG or PNG, and JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC and AVIF do.
    """
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or b"\0" in head


def _listed(listing: Iterable[str]) -> Iterator[NamedImage]:
    stream = getattr(listing, "buffer", None)
    if stream is not None and hasattr(stream, "peek") and begins_an_image(stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]):
        content = stream.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            yield STDIN, InputError(f"standard input: more than {_MAX_BYTES >> 20} MiB; give the image as a file")
        else:
            yield STDIN, ImageBytes(content, "standard input")
    else:
        yield from ((line.strip(), line.strip()) for line in listing if line.strip())


def _behind(name: str) -> Iterator[NamedImage]:
    path = Path(name)
    try:
        if path.is_dir():
            yield from _in_folder(name, path)
        elif path.exists() or not glob.has_magic(name):
            yield name, name
        else:
            # Path.glob takes no absolute pattern
            matches = sorted(glob.iglob(name, recursive=True))  # noqa: PTH207
            for match in matches:
                yield from _behind(match)
            if not matches:
                yield name, InputError(f"{name}: the pattern matches no file")
    except OSError as error:
        yield name, InputError(f"{name}: cannot be read ({error.strerror})")


def _in_folder(name: str, folder: Path) -> Iterator[NamedImage]:
    """Each image below a folder; the problem in the place of what cannot be read, or where there is none."""
    empty = True
    for found in walk_readable(folder):
        empty = False
        yield (name, found) if isinstance(found, InputError) else (str(found), str(found))
    if empty:
        yield name, InputError(f"{name}: the folder holds no images")

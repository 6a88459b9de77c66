"""The image paths behind the names on a command line."""

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from pi_dynn.data.folders import walk_images
from pi_dynn.errors import InputError

NamedImage = tuple[str, str | InputError]
"""The name of an image, and its path or the error in its place."""


def named_images(names: Iterable[str], listing: Iterable[str] = ()) -> Iterator[NamedImage]:
    """The images of files, folders (recursive), glob patterns, and `-` for the lines of `listing`.

    They are listed lazily, so a folder of a hundred thousand images needs no memory.
    """
    for name in names:
        if name == "-":
            yield from ((line.strip(), line.strip()) for line in listing if line.strip())
        else:
            yield from _behind(name)


def _behind(name: str) -> Iterator[NamedImage]:
    path = Path(name)
    try:
        if path.is_dir():
            yield from _or_problem(name, map(str, walk_images(path)), "the folder holds no images")
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


def _or_problem(name: str, paths: Iterator[str], problem: str) -> Iterator[NamedImage]:
    """Each path as an image; without any path, the problem in its place."""
    empty = True
    for path in paths:
        empty = False
        yield path, path
    if empty:
        yield name, InputError(f"{name}: {problem}")

"""What a person names on a command line, as a stream of image paths."""

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pi_dynn.data.folders import walk_images
from pi_dynn.errors import InputError


@dataclass(frozen=True)
class ImageSource:
    """One image to classify, or a place where one was expected and why there is none."""

    path: str
    problem: str | None = None

    def check(self) -> str:
        """The path. Raises InputError with the problem, if there is one."""
        if self.problem is not None:
            raise InputError(self.problem)
        return self.path


def image_sources(names: Iterable[str], listing: Iterable[str] = ()) -> Iterator[ImageSource]:
    """Images behind files, folders (recursive), glob patterns, and `-` for the lines of `listing`.

    They are found one by one, so a folder of a hundred thousand costs no memory.
    """
    for name in names:
        if name == "-":
            yield from (ImageSource(line.strip()) for line in listing if line.strip())
        else:
            yield from _behind(name)


def _behind(name: str) -> Iterator[ImageSource]:
    path = Path(name)
    try:
        if path.is_dir():
            yield from _in_folder(path)
        elif path.exists() or not glob.has_magic(name):
            yield ImageSource(name)
        else:
            found = False
            # Path.glob takes no absolute pattern
            for match in sorted(glob.iglob(name, recursive=True)):  # noqa: PTH207
                found = True
                yield from _behind(match)
            if not found:
                yield ImageSource(name, f"{name}: the pattern matches no file")
    except OSError as error:
        yield ImageSource(name, f"{name}: cannot be read ({error.strerror})")


def _in_folder(folder: Path) -> Iterator[ImageSource]:
    found = False
    for image in walk_images(folder):
        found = True
        yield ImageSource(str(image))
    if not found:
        yield ImageSource(str(folder), f"{folder}: the folder holds no images")

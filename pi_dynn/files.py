"""Atomic writing of files, and their hashes."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A temporary file beside `path` to write to, renamed to `path` when the body ends without an exception.

    What stood at `path` survives any failure before the rename. A failure to write, such as a full disk, names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = _temporary_file(path)
    except OSError as error:
        error.filename = str(path)  # not the temporary file's, which nobody chose
        raise
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fchmod(handle, 0o644)
            os.fsync(handle)
            if not name.exists():
                # with a folder's handle Python calls linkat, which follows the link; link would not
                os.link(f"/proc/self/fd/{handle}", name, src_dir_fd=handle)
        name.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        name.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(name), f"/proc/self/fd/{handle}"):
            error.filename, error.filename2 = str(path), None
        raise


def _temporary_file(path: Path) -> tuple[int, Path]:
    """The handle of a new file in the folder of `path`, and the name it has or is to get before it is renamed.

    Where the file system can do that it has no name while it is written: of a killed process nothing stays behind.
    """
    if hasattr(os, "O_TMPFILE"):
        with suppress(OSError):
            return os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o600), _temporary_name(path)
    name = _temporary_name(path)
    return os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), name


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def _sync_folder(folder: Path) -> None:
    """Have the new name survive a power cut, too, where the file system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Write the file at `path` with `write`, atomically."""
    with replacing(path) as stream:
        write(stream)


def write_text(path: str | Path, text: str) -> None:
    """Replace the file at `path` by `text` in UTF-8, atomically."""
    write_atomically(path, lambda stream: stream.write(text.encode()))


def file_sha256(path: str | Path) -> str:
    """sha256 of a file's content, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()

"""Reading of sysfs files, with failures as errors of a power meter."""

import errno
from pathlib import Path

from pi_dynn.errors import MeterBusError, MeterDenied, MeterNotFound, PowerError


def sysfs_error(error: OSError, path: Path) -> PowerError:
    """The error for a failed read of `path`."""
    if error.errno in (errno.ENOENT, errno.ENODEV):
        return MeterNotFound(f"{path} is gone: was the meter or its driver removed?")
    if error.errno in (errno.EACCES, errno.EPERM):
        return MeterDenied(f"this user may not read {path}: sudo chmod a+r {path}")
    return MeterBusError(f"cannot read {path} ({error.strerror or error}): see dmesg")


def read_text(path: Path) -> str:
    """The text of `path` without white space around it.

    Raises: MeterNotFound, MeterDenied or MeterBusError.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise sysfs_error(error, path) from error


def read_int(path: Path) -> int:
    """The whole number in `path`.

    Raises: MeterNotFound, MeterDenied, or MeterBusError if there is no number in it.
    """
    text = read_text(path)
    try:
        return int(text)
    except ValueError as error:
        raise MeterBusError(f"{path} holds {text!r}, not a number: is its driver the right one?") from error


def read_optional_int(path: Path) -> int | None:
    """As `read_int`, or None if there is no such file."""
    try:
        return read_int(path)
    except MeterNotFound:
        return None

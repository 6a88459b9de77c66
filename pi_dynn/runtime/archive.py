"""The file a bundle is: a zip archive with a manifest in it and a hash of all the rest. Imports no torch."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pi_dynn.errors import BundleError, BundleNotFound

MANIFEST_NAME = "pi_dynn.json"
EMBEDDED = "ucm_gfnet_12_192_128.pt"
Manifest = TypeVar("Manifest")


def bundle_file(path: str | Path | None, embedded: str = EMBEDDED) -> tuple[bytes, str]:
    """Content and name of a bundle file, not looked into; for None that of the one that comes with the package.

    Raises: BundleNotFound, BundleError for a file that cannot be read.
    """
    if path is None:
        return (resources.files("pi_dynn.assets") / embedded).read_bytes(), embedded
    path = Path(path)
    try:
        return path.read_bytes(), str(path)
    except FileNotFoundError as error:
        raise BundleNotFound(f"{path}: no such bundle; make one with `pi-dynn export`") from error
    except (IsADirectoryError, PermissionError) as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error


def verified_manifest(
    data: bytes, name: str, read: Callable[[Any], Manifest], digest: Callable[[Manifest], str]
) -> Manifest:
    """The manifest in `data`, a bundle file's content, as `read` makes it of parsed JSON; nothing in it is run.

    `digest` gives the hash in the manifest, which the rest of the archive has to have. `name` begins error messages.

    Raises: BundleError for anything that is no bundle, or a damaged one.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if archive.testzip() is not None:
                raise BundleError(f"{name}: damaged at {archive.testzip()}; copy it again")
            manifest = read(json.loads(archive.read(manifest_entry(archive))))
            if weights_digest(archive.namelist(), archive.read) != digest(manifest):
                raise BundleError(f"{name}: the network does not match the hash in its manifest; copy it again")
    except BundleError as error:
        raise type(error)(str(error) if str(error).startswith(name) else f"{name}: {error}") from error
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, OSError, EOFError, NotImplementedError) as error:
        raise BundleError(f"{name}: not a pi_dynn bundle, or a damaged one ({error}); export it again") from error
    return manifest


def weights_digest(names: Iterable[str], read: Callable[[str], bytes]) -> str:
    """sha256 over the names and contents of everything in a bundle but its manifest."""
    digest = hashlib.sha256()
    for name in sorted(names):
        if not name.endswith(f"/extra/{MANIFEST_NAME}"):
            digest.update(name.partition("/")[2].encode() + b"\0" + read(name))
    return digest.hexdigest()


def manifest_entry(archive: zipfile.ZipFile) -> str:
    """The name of the manifest in an archive. Raises: BundleError if there is none."""
    for name in archive.namelist():
        if name.endswith(f"/extra/{MANIFEST_NAME}"):
            return name
    raise BundleError(f"holds no {MANIFEST_NAME}, so it is no pi_dynn bundle; make one with `pi-dynn export`")

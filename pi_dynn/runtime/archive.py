"""The file a bundle is: a zip archive with a manifest in it and a hash of all the rest. Imports no torch."""

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pi_dynn.errors import BundleError, BundleNotFound
from pi_dynn.runtime.forms import FORM_SUFFIXES, LITERT, ONNX

MANIFEST_NAME = "pi_dynn.json"
MANIFEST_FILE = f"extra/{MANIFEST_NAME}"
FOLDER = "archive"  # of an archive; TorchScript wants one
EMBEDDED = "gfnet"
# Bundles that come with the package, by name. Other forms of them are beside, with these endings.
SHIPPED = {EMBEDDED: "ucm_gfnet_12_192_128.pt", "lite0": "ucm_efficientnet_lite0_96.pt"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date a zip archive knows: no entry tells when it was made
_UTF8_NAMES = 0x800  # the only flag that changes nothing
Manifest = TypeVar("Manifest")


def bundle_file(path: str | Path | None, form: str | None = None) -> tuple[bytes, str]:
    """Content and name of a bundle file, not looked into; one that comes with the package for its name, or for None.

    Of those that come with the package the given form is taken; for None TorchScript, and without torch a form that
    runs here.

    Raises: BundleNotFound, BundleError for a file that cannot be read.
    """
    if is_shipped(path):
        file = _shipped_file(str(path or EMBEDDED), form)
        return (resources.files("pi_dynn.assets") / file).read_bytes(), file
    path = Path(str(path))
    try:
        return path.read_bytes(), str(path)
    except FileNotFoundError as error:
        names = " or ".join(SHIPPED)
        raise BundleNotFound(
            f"{path}: no such bundle; make one with `pi-dynn learn` or `pi-dynn export`, or name {names}"
        ) from error
    except (IsADirectoryError, PermissionError) as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error


def form_file(file: str, form: str) -> str:
    """The file with another form, ONNX or LITERT, of a shipped bundle."""
    return f"{Path(file).stem}{FORM_SUFFIXES[form]}"


def _shipped_file(name: str, form: str | None) -> str:
    """The file of a bundle that comes with the package, in a form that runs here for None."""
    if form is None and find_spec("torch") is None:
        form = ONNX if find_spec("ai_edge_litert") is None else LITERT
    return SHIPPED[name] if form is None else form_file(SHIPPED[name], form)


def is_shipped(path: str | Path | None) -> bool:
    """Whether `path` is None or the name of a bundle that comes with the package, and no file of that name is here."""
    return path is None or str(path) in SHIPPED and not Path(path).exists()


def verified_manifest(
    data: bytes, name: str, read: Callable[[Any], Manifest], digest: Callable[[Manifest], str]
) -> Manifest:
    """The manifest in `data`, a bundle file's content, as `read` makes it of parsed JSON; nothing in it is run.

    `digest` gives the hash in the manifest, which the rest of the archive has to have. `name` begins error messages.

    Raises: BundleError for anything that is no bundle, or a damaged one.
    """
    try:
        files = plain_files(data)
        if MANIFEST_FILE not in files:
            raise BundleError(f"holds no {MANIFEST_NAME}, so it is no pi_dynn bundle; make one with `pi-dynn export`")
        manifest = read(json.loads(files[MANIFEST_FILE]))
        if weights_digest(files) != digest(manifest):
            raise BundleError("the network does not match the hash in its manifest; copy it again")
    except BundleError as error:
        raise type(error)(f"{name}: {error}") from error
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise BundleError(f"{name}: not a pi_dynn bundle, or a damaged one ({error}); export it again") from error
    return manifest


def plain_files(data: bytes) -> dict[str, bytes]:
    """The files of a bundle's archive by their names below its folder.

    Archives have many ways to say one thing, and readers differ in which they believe. So what is read here is what is
    hashed and, in an archive made anew, what an engine gets. Nothing is compressed, so that no file is
    larger than the archive.

    Raises: BundleError for a damaged archive, or one with entries of other kinds or the same name twice.
    """
    files: dict[str, bytes] = {}
    if not data.startswith(b"PK"):
        raise BundleError("not a pi_dynn bundle; `pi-dynn export` makes one of a network's weights")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                name = entry.filename.partition("/")[2]
                if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ~_UTF8_NAMES or not name:
                    raise BundleError(f"holds {entry.filename!r}, which is no plain file; export it again")
                if name in files:
                    raise BundleError(f"holds {name!r} twice; export it again")
                files[name] = archive.read(entry)
    # RuntimeError includes NotImplementedError, of a version or compression that zipfile does not know.
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, RuntimeError, struct.error) as error:
        raise BundleError(f"not a pi_dynn bundle, or a damaged one ({error}); copy it again") from error
    if sum(map(len, files.values())) > len(data):
        raise BundleError("holds entries that lie upon each other; export it again")
    return files


def torchscript_files(source: BinaryIO | Path) -> dict[str, bytes]:
    """The files of an archive that torch wrote, by their names below its folder, without positions in source code."""
    with zipfile.ZipFile(source) as archive:
        names = [name for name in archive.namelist() if not name.endswith(".debug_pkl")]
        return {name.partition("/")[2]: archive.read(name) for name in names}


def packed(files: Mapping[str, bytes]) -> bytes:
    """An archive with these files, by their names below its folder."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(f"{FOLDER}/{name}", _EPOCH), content)
    return target.getvalue()


def weights_digest(files: Mapping[str, bytes]) -> str:
    """sha256 over the names and contents of everything in a bundle but its manifest."""
    digest = hashlib.sha256()
    for name in sorted(files):
        if name != MANIFEST_FILE:
            digest.update(name.encode() + b"\0" + files[name])
    return digest.hexdigest()

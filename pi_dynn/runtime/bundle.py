"""Bundles: one file with a scripted network and a manifest that describes it.

The file is a TorchScript archive that `torch.jit.load` can read, or a zip archive of graphs; the manifest is
its extra file `pi_dynn.json`. TorchScript's source positions are left out, because they hold paths of the machine
that built it.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pi_dynn.files import write_atomically
from pi_dynn.runtime.archive import (
    MANIFEST_FILE,
    bundle_file,
    is_shipped,
    packed,
    plain_files,
    verified_manifest,
    weights_digest,
)
from pi_dynn.runtime.manifest import Manifest

if TYPE_CHECKING:
    import torch


class Bundle:
    """A verified bundle in memory: its manifest, and its network for any engine.

    Attributes: manifest, sha256 (of the whole file, which names the bundle), source (a path or None), trusted (its code
    may do anything).
    """

    def __init__(self, data: bytes, source: str | None = None, trusted: bool = False) -> None:
        """Verify `data`, the content of a bundle file. Raises BundleError."""
        name = source or "bundle"
        self.trusted = trusted
        self.manifest = verified_manifest(data, name, Manifest.from_dict, lambda manifest: manifest.weights_sha256)
        self.data = data
        self.source = source
        self.sha256 = hashlib.sha256(data).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the bundle to `path`, atomically."""
        write_atomically(path, lambda stream: stream.write(self.data))

    def network_files(self) -> dict[str, bytes]:
        """What the bundle holds beside its manifest: contents by names without their folder."""
        return {name: content for name, content in plain_files(self.data).items() if name != MANIFEST_FILE}

    def read(self, name: str) -> bytes:
        """The content of one of them."""
        return self.network_files()[name]

    def with_manifest(self, **changes: Any) -> "Bundle":
        """The same network with other entries in its manifest."""
        described = pack_files(
            self.network_files(), lambda digest: replace(self.manifest, weights_sha256=digest, **changes)
        )
        described.trusted = self.trusted
        return described

    def load_network(self, engine: str) -> "torch.jit.ScriptModule":
        """The scripted network with int8 weights packed for `engine`, or computing in floats for "fp32".

        Raises: EngineUnavailable, BundleError if TorchScript cannot read it, or if its code does more than compute.
        """
        from pi_dynn.runtime.torchscript import load_network

        return load_network(self, engine)


def load_bundle(path_or_name: str | Path | None = None, trust: bool = False, form: str | None = None) -> Bundle:
    """A bundle from a file, or one that comes with the package by its name; the embedded one for None.

    One that comes with the package is taken in the given form, "onnx" or "litert"; for None in TorchScript, if torch is
    there. With `trust` the code in the file may do anything. Without, it may compute only.

    Raises: BundleNotFound, BundleError.
    """
    return Bundle(*bundle_file(path_or_name, form), trusted=trust or is_shipped(path_or_name))


def is_bundle(path: str | Path) -> bool:
    """Whether the file at `path` is a bundle by its manifest, and not a checkpoint; its content is not verified."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"/{MANIFEST_FILE}") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def pack_files(files: Mapping[str, bytes], describe: Callable[[str], Manifest]) -> Bundle:
    """A Bundle of files by name, with the manifest `describe(weights_sha256)`."""
    manifest = json.dumps(describe(weights_digest(files)).to_dict(), indent=1, ensure_ascii=False)
    return Bundle(packed({**files, MANIFEST_FILE: manifest.encode()}))

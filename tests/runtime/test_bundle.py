"""Bundle files: what is written is what is read, and nothing else passes."""

import io
import json
import zipfile

import pytest
import torch

from pi_dynn.errors import BundleError, BundleNotFound
from pi_dynn.runtime.archive import MANIFEST_NAME
from pi_dynn.runtime.bundle import Bundle, load_bundle


def rebuilt(bundle: Bundle, change) -> bytes:
    """The bundle's archive with `change(name, content)` applied to every entry; None drops it."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bundle.data)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = change(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    return out.getvalue()


def with_manifest(bundle: Bundle, edit) -> bytes:
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith(MANIFEST_NAME):
            return content
        values = json.loads(content)
        edit(values)
        return json.dumps(values).encode()

    return rebuilt(bundle, change)


def test_saved_and_loaded(tiny_bundle, tmp_path):
    tiny_bundle.save(tmp_path / "net.pt")
    again = load_bundle(tmp_path / "net.pt")
    assert again.manifest == tiny_bundle.manifest
    assert again.sha256 == tiny_bundle.sha256


def test_plain_torch_reads_it_with_its_manifest(tiny_bundle_path):
    extra = {MANIFEST_NAME: ""}
    network = torch.jit.load(tiny_bundle_path, _extra_files=extra)
    assert json.loads(extra[MANIFEST_NAME])["labels"] == list("abcde")
    assert len(network.forward_all(torch.zeros(1, 3, 32, 32))) == 4


def test_no_path_of_the_building_machine_is_inside(tiny_bundle):
    with zipfile.ZipFile(io.BytesIO(tiny_bundle.data)) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".debug_pkl")]
        assert not any(b"pi_dynn/deploy" in archive.read(name) for name in archive.namelist())


# What can be wrong with a bundle's file, and what the error says.
DAMAGES = [
    (lambda b: b"", "not a pi_dynn bundle"),
    (lambda b: b"hello", "not a pi_dynn bundle"),
    (lambda b: b.data[: len(b.data) // 2], "not a pi_dynn bundle"),
    (lambda b: b.data[:5000] + b"\xff" * 50 + b.data[5050:], "damaged"),
    (lambda b: rebuilt(b, lambda n, c: None if n.endswith(MANIFEST_NAME) else c), "no pi_dynn.json"),
    (lambda b: rebuilt(b, lambda n, c: c + b" " if n.endswith(".py") else c), "hash"),
    (lambda b: with_manifest(b, lambda m: m.update(schema=99)), "schema 99"),
    (lambda b: with_manifest(b, lambda m: m.pop("labels")), "missing required field `labels`"),
    (lambda b: with_manifest(b, lambda m: m.update(thresholds=[0.5])), "1 thresholds"),
    (lambda b: rebuilt(b, lambda n, c: b"[1]" if n.endswith(MANIFEST_NAME) else c), "Expected `object`"),
    (lambda b: rebuilt(b, lambda n, c: b"{" if n.endswith(MANIFEST_NAME) else c), "not a pi_dynn bundle"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_anything_wrong_is_one_line_with_file_and_reason(tiny_bundle, tmp_path, damage, reason):
    path = tmp_path / "bad.pt"
    path.write_bytes(damage(tiny_bundle))
    with pytest.raises(BundleError, match=reason) as caught:
        load_bundle(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(BundleNotFound, match="no such bundle"):
        load_bundle(tmp_path / "none.pt")
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(tmp_path)

"""Bundle files: what is written is what is read, and nothing else passes."""

import io
import json
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pi_dynn.errors import BundleError, BundleNotFound, PiDynnError
from pi_dynn.runtime.archive import MANIFEST_FILE, MANIFEST_NAME, SHIPPED, packed, plain_files
from pi_dynn.runtime.bundle import Bundle, load_bundle
from pi_dynn.runtime.code_check import check_files


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


NAN = float("nan")
# What a manifest may say that cannot be.
LIES = [
    *({"depth": 0}, {"depth": 10**9}, {"depth": -5}, {"precision": "junk"}, {"format": "pickle"}, {"labels": []}),
    *({"thresholds": [NAN, 0.5, 0.5]}, {"thresholds": [float("inf"), 0.5, 0.5]}, {"macs": [9, 8, 7, 6]}),
    *({"exit_blocks": [-5, 1, 2]}, {"exit_blocks": [2, 1, 0]}, {"exit_blocks": [0, 0, 1]}, {"exit_blocks": [0, 1, 99]}),
    *({"macs": [-1, 2, 3, 4]}, {"self_test": [[1.0]]}, {"macs": [NAN] * 4}, {"labels": "abcde"}, {"arguments": 7}),
    *({"preprocess": {"size": 20_000}}, {"preprocess": {"size": 0}}, {"preprocess": {"size": 32, "crop": NAN}}),
    *({"preprocess": {"size": 32, "std": [0, 1, 1]}}, {"preprocess": {"size": 32, "mean": [NAN, 0, 0]}}),
    {"rejection": {"alpha": 0.1, "limit": NAN, "images": 5, "class_means": [[[0.0] * 5] * 5] * 4}},
]


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_a_manifest_that_cannot_be_is_one_line(tiny_bundle, lie):
    with pytest.raises(BundleError) as caught:
        Bundle(with_manifest(tiny_bundle, lambda values: values.update(lie)))
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_manifest_says_is_an_error_of_ours_or_fits(tiny_bundle, data):
    field = data.draw(st.sampled_from(sorted(tiny_bundle.manifest.to_dict())))
    try:
        bundle = Bundle(with_manifest(tiny_bundle, lambda values: values.update({field: data.draw(JSON)})))
    except PiDynnError:
        return
    assert len(bundle.manifest.blocks) == len(bundle.manifest.macs) == len(bundle.manifest.thresholds) + 1


def entries(bundle: Bundle, change) -> bytes:
    """The bundle's archive written by `change(archive, entry, content)` for every entry."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bundle.data)) as source, zipfile.ZipFile(out, "w") as target:
        for entry in source.infolist():
            change(target, entry, source.read(entry))
    return out.getvalue()


def squeezed(target: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
    target.writestr(entry, content, zipfile.ZIP_DEFLATED)


def twice(target: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
    target.writestr(entry.filename, content)
    if entry.filename.endswith("data.pkl"):
        target.writestr("other/" + entry.filename.partition("/")[2], content)


def with_a_folder(target: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
    target.writestr(entry, content)
    if entry.filename.endswith("data.pkl"):
        target.writestr("archive/", b"")


@pytest.mark.parametrize(("change", "reason"), [(squeezed, "no plain"), (twice, "twice"), (with_a_folder, "no plain")])
def test_entries_that_are_not_plain_are_refused(tiny_bundle, change, reason):
    with pytest.raises(BundleError, match=reason):
        Bundle(entries(tiny_bundle, change))


def test_what_torch_reads_is_what_was_verified(tiny_bundle):
    def as_a_folder(target: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
        entry.external_attr |= 0x10  # for which torch skips the data
        target.writestr(entry, content)

    x = torch.randn(1, 3, 32, 32)
    changed = Bundle(entries(tiny_bundle, as_a_folder))
    wanted = tiny_bundle.load_network("qnnpack").forward_all(x)
    for got, want in zip(changed.load_network("qnnpack").forward_all(x), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.integers(1, 255), st.booleans())
def test_a_changed_byte_is_refused_or_changes_nothing(tiny_bundle, place, flip, at_the_end):
    data = bytearray(tiny_bundle.data)
    start = data.index(b"PK\x01\x02") if at_the_end else 0  # the central directory
    data[start + place % (len(data) - start)] ^= flip
    try:
        changed = Bundle(bytes(data))
    except BundleError as error:
        assert "\n" not in str(error)
        return
    assert plain_files(changed.data) == plain_files(tiny_bundle.data)


def test_packing_is_the_inverse_of_reading(tiny_bundle):
    files = plain_files(tiny_bundle.data)
    assert plain_files(packed(files)) == files and packed(files) == tiny_bundle.data


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


@pytest.mark.parametrize("name", [None, *SHIPPED])
def test_bundles_that_come_with_the_package(name):
    bundle = load_bundle(name)
    assert (
        len(bundle.data) < (6e6 if name == "lite0" else 7e6)
        and bundle.manifest.rejection is not None
        and len(bundle.manifest.labels) == 21
    )
    check_files({file: text for file, text in plain_files(bundle.data).items() if file != MANIFEST_FILE}, "shipped")


def test_a_file_of_such_a_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lite0").write_bytes(b"mine")
    with pytest.raises(BundleError, match="not a pi_dynn bundle"):
        load_bundle("lite0")
    with pytest.raises(BundleNotFound, match="or name gfnet or lite0"):
        load_bundle("lite1")

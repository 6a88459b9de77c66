"""Sessions on ONNX Runtime answer like sessions on TorchScript."""

import sys
import zipfile

import pytest
import torch

from pi_dynn import Session, load_bundle
from pi_dynn.cli.options import sample_folder
from pi_dynn.errors import BundleError, EngineUnavailable
from pi_dynn.runtime import onnx_network
from pi_dynn.runtime.engine_choice import exact_network, relative_error
from pi_dynn.runtime.onnx_network import OnnxNetwork

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def converted(tiny_bundle):
    from pi_dynn.deploy.onnx import onnx_bundle

    return onnx_bundle(tiny_bundle, "fp32")


@pytest.fixture(scope="module")
def sessions(tiny_bundle, converted):
    return Session(tiny_bundle, threads=1, engine="fp32"), Session(converted, threads=1)


@pytest.fixture(scope="module")
def images():
    return list(torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(3)))


def test_the_same_exits_and_answers(sessions, images):
    scripted, onnx = sessions
    scores = scripted.forward_scored(torch.stack(images))[1][:-1]
    limits = [float(score.sort().values[4:6].mean()) for score in scores]  # no score is this one by rounding
    expected = [scripted.classify(image, limits) for image in images]
    assert len({answer.exit_index for answer in expected}) > 1
    for batch_size in (1, 4):
        for want, got in zip(expected, onnx.classify_many(images, batch_size, limits), strict=True):
            assert (want.class_index, want.exit_index) == (got.class_index, got.exit_index)
            assert (want.probability, want.score) == pytest.approx((got.probability, got.score), abs=1e-5)
    for want, got in zip(scripted.forward_all(images[0][None]), onnx.forward_all(images[0][None]), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sets", [frozenset(), None])
@torch.inference_mode()
def test_int8_convolutions_do_not_overflow(sets, monkeypatch):
    """On an x86 processor without VNNI, which loses up to half of the logits unless told to be exact; and here."""
    if sets is not None:
        monkeypatch.setattr(onnx_network, "instruction_sets", lambda: sets)
    bundle = load_bundle("lite0")
    x = torch.stack([bundle.manifest.preprocess(path) for path in sorted(sample_folder().glob("*.jpg"))])
    wanted = exact_network(bundle).forward_all(x)
    assert relative_error(Session(load_bundle("lite0", form="onnx"), threads=1).forward_all(x), wanted) < 0.05


def test_deadlines_are_kept(sessions, images):
    assert sessions[1].classify(images[0], 2.0, deadline_s=0.0).exit_index == 0


def test_files_are_verified(converted, tmp_path):
    converted.save(tmp_path / "net.onnx.zip")
    assert load_bundle(tmp_path / "net.onnx.zip").manifest == converted.manifest
    with zipfile.ZipFile(tmp_path / "net.onnx.zip") as source, zipfile.ZipFile(tmp_path / "other.zip", "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name) + (b" " if name.endswith("stage1.onnx") else b""))
    with pytest.raises(BundleError, match="does not match the hash"):
        load_bundle(tmp_path / "other.zip")
    with pytest.raises(BundleError, match="ONNX Runtime cannot load"):
        OnnxNetwork([b"no graph"], threads=1)


def test_engines_that_do_not_fit_the_bundle(tiny_bundle, converted, monkeypatch):
    with pytest.raises(EngineUnavailable, match="export --format onnx"):
        Session(tiny_bundle, engine="onnxruntime")
    with pytest.raises(EngineUnavailable, match="'qnnpack' cannot run"):
        Session(converted, engine="qnnpack")
    with pytest.raises(BundleError, match="holds ONNX graphs"):
        converted.load_network("fp32")
    monkeypatch.setenv("PI_DYNN_ENGINE", "qnnpack")  # a wish for the bundles that can have it
    assert Session(converted).engine == "onnxruntime"


def test_without_the_package_the_error_says_what_to_install(converted, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineUnavailable, match=r"pip install .*\[onnx\]'"):
        Session(converted)

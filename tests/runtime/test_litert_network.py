"""Sessions on LiteRT answer like sessions on TorchScript."""

import subprocess
import sys
import zipfile

import pytest
import torch

from pi_dynn import Session, load_bundle
from pi_dynn.errors import BundleError, EngineUnavailable
from pi_dynn.runtime.litert_network import LiteRtNetwork
from pi_dynn.runtime.session import NEVER

pytest.importorskip("ai_edge_litert")


@pytest.fixture(scope="module")
def converted():
    return load_bundle("lite0", form="litert")


@pytest.fixture(scope="module")
def sessions(converted):
    return Session(load_bundle("lite0"), threads=1, engine="qnnpack"), Session(converted, threads=1)


@pytest.fixture(scope="module")
def inputs():
    return list(torch.randn(6, 3, 96, 96, generator=torch.Generator().manual_seed(3)))


def test_the_same_exits_and_answers(sessions, inputs):
    scripted, litert = sessions
    scores = scripted.forward_scored(torch.stack(inputs))[1][:-1]
    limits = [
        float(score.sort().values[3:5].mean()) for score in scores
    ]  # between two scores, so rounding decides none
    expected = [scripted.classify(one, limits) for one in inputs]
    assert len({answer.exit_index for answer in expected}) > 1
    for batch_size in (1, 4):
        for want, got in zip(expected, litert.classify_many(inputs, batch_size, limits), strict=True):
            assert (want.class_index, want.exit_index) == (got.class_index, got.exit_index)
            assert (want.probability, want.score) == pytest.approx((got.probability, got.score), abs=0.05)


def test_deadlines_and_threads_are_kept(sessions, inputs):
    session = sessions[1]
    assert session.classify(inputs[0], NEVER, deadline_s=0.0).exit_index == 0
    before = session.classify(inputs[0]).probability
    session._network.set_threads(2)
    assert session.classify(inputs[0]).probability == pytest.approx(before)
    session.set_threads()
    assert set(session._network._opened) == {1, 2}


def test_files_are_verified(converted, tmp_path):
    converted.save(tmp_path / "net.tflite.zip")
    assert load_bundle(tmp_path / "net.tflite.zip").manifest == converted.manifest
    with zipfile.ZipFile(tmp_path / "net.tflite.zip") as source, zipfile.ZipFile(tmp_path / "b.zip", "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name) + (b" " if name.endswith("stage1.tflite") else b""))
    with pytest.raises(BundleError, match="does not match the hash"):
        load_bundle(tmp_path / "b.zip")
    with pytest.raises(BundleError, match="LiteRT cannot load"):
        LiteRtNetwork([b"no graph"], 1, [])
    last = converted.read("stage4.tflite")
    with pytest.raises(BundleError, match="LiteRT cannot load"):
        LiteRtNetwork([last[: len(last) // 2]], 1, [])


@pytest.mark.parametrize("gates", [b"[]", b"{", b'[{"kind": "other"}]', b"3"])
def test_gates_that_do_not_fit_are_refused(converted, gates):
    from pi_dynn.runtime.bundle import pack_files
    from pi_dynn.runtime.manifest import Manifest

    files = converted.network_files() | {"gates.json": gates}
    values = converted.manifest.to_dict()
    with pytest.raises(BundleError, match="export it again"):
        Session(pack_files(files, lambda digest: Manifest.from_dict(values | {"weights_sha256": digest})))


def test_a_size_that_the_graphs_do_not_have_is_one_line(converted):
    from dataclasses import replace

    changed = converted.with_manifest(preprocess=replace(converted.manifest.preprocess, size=64))
    with pytest.raises(BundleError, match="images of 64 px that its manifest promises"):
        Session(changed)


def test_engines_that_do_not_fit_the_bundle(tiny_bundle, converted):
    with pytest.raises(EngineUnavailable, match="export --format litert"):
        Session(tiny_bundle, engine="litert")
    for engine in ("qnnpack", "onnxruntime"):
        with pytest.raises(EngineUnavailable, match=engine):
            Session(converted, engine=engine)
    with pytest.raises(BundleError, match="holds LiteRT graphs"):
        converted.load_network("fp32")


def test_nothing_but_answers_is_printed(tmp_path):
    program = "import pi_dynn; pi_dynn.Session(pi_dynn.load_bundle('lite0', form='litert'), threads=1)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_the_package_the_error_says_what_to_install(converted, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(EngineUnavailable, match=r"pip install .*\[litert\]'"):
        Session(converted)

"""Engines: set and restored, tested before use, cached afterwards."""

import json

import pytest
import torch

from pi_dynn import Preprocess, Session, build_bundle
from pi_dynn.clock import FakeClock, PerfClock
from pi_dynn.errors import EngineUnavailable
from pi_dynn.runtime import engine_choice, engines
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.runtime.engine_choice import candidates, engine_findings, exact_network, open_network, relative_error
from pi_dynn.runtime.engines import available_engines, exact_engines, using_engine
from pi_dynn.runtime.machine_cache import CHOICES


def test_engine_is_put_back_also_after_an_error():
    before = torch.backends.quantized.engine
    other = next(name for name in available_engines() if name != before)
    with pytest.raises(ZeroDivisionError), using_engine(other):
        assert torch.backends.quantized.engine == other
        raise ZeroDivisionError
    assert torch.backends.quantized.engine == before


def test_sessions_leave_the_engine_of_the_process_alone(tiny_bundle):
    before = torch.backends.quantized.engine
    for engine in available_engines():
        Session(tiny_bundle, threads=1, engine=engine)
        assert torch.backends.quantized.engine == before


def test_unknown_and_missing_engines(tiny_bundle, monkeypatch):
    with pytest.raises(EngineUnavailable, match="not known"):
        Session(tiny_bundle, engine="tpu")
    monkeypatch.setattr("pi_dynn.runtime.engines.available_engines", lambda: ["qnnpack"])
    with pytest.raises(EngineUnavailable, match="'onednn' is not in torch"):
        Session(tiny_bundle, engine="onednn")


def test_fp32_bundle_has_no_engine(tiny_model):
    bundle = build_bundle(
        tiny_model, exits=[], thresholds=[], precision="fp32", labels=list("abcde"), preprocess=Preprocess(size=32)
    )
    assert Session(bundle, threads=1).engine == "fp32"
    with pytest.raises(EngineUnavailable, match="exported as int8"):
        Session(bundle, engine="qnnpack")


def test_environment_stands_in_for_auto_only(tiny_bundle, monkeypatch):
    monkeypatch.setenv("PI_DYNN_ENGINE", "fp32")
    assert Session(tiny_bundle, threads=1).engine == "fp32"
    assert Session(tiny_bundle, threads=1, engine="qnnpack").engine == "qnnpack"


def test_auto_keeps_the_fastest_and_remembers_it(tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    engine, network = open_network(tiny_bundle, "auto", PerfClock())
    assert engine in candidates()
    x = torch.randn(1, 3, 32, 32)
    reference = tiny_bundle.load_network("fp32").forward_all(x)
    assert relative_error(network.forward_all(x), reference) < engine_choice.WORST_RELATIVE_ERROR
    assert list(json.loads(CHOICES.path.read_text()).values())[0][0] == engine

    def no_second_choice(*_):
        raise AssertionError("the remembered engine should have been used")

    monkeypatch.setattr(engine_choice, "_tested", no_second_choice)
    assert open_network(tiny_bundle, "auto", FakeClock())[0] == engine


def test_findings_say_whether_the_choice_was_remembered(tiny_bundle_path, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for how in ("timed just now", "remembered"):
        *engines, selected = engine_findings(tiny_bundle_path, PerfClock())
        assert [finding.name for finding in engines] == candidates()
        assert selected.value in {f"{engine} ({how})" for engine in candidates()}


def test_auto_passes_over_engines_that_compute_wrong_values(tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engine_choice, "relative_error", lambda outputs, reference: float("inf"))
    assert open_network(tiny_bundle, "auto", PerfClock())[0] == "fp32"
    with pytest.raises(EngineUnavailable, match="off by"):
        open_network(tiny_bundle, "qnnpack", PerfClock())


def test_auto_passes_over_engines_that_raise(tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tested = engine_choice._tested

    def only_one_works(bundle, engine):
        if engine != candidates()[-1]:
            raise RuntimeError("unknown architecure")  # the words of torch 2.13 on ARM
        return tested(bundle, engine)

    monkeypatch.setattr(engine_choice, "_tested", only_one_works)
    assert open_network(tiny_bundle, "auto", PerfClock())[0] == candidates()[-1]


def test_convolutions_in_int8_are_not_for_x86(monkeypatch, tmp_path):
    """Its FBGEMM overflows in them: on the test images of ucm 94 % of the exits of lite0 were those of qnnpack."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lite0 = load_bundle("lite0")
    with pytest.raises(EngineUnavailable, match="overflows in int8 convolutions on this machine; choose"):
        open_network(lite0, "x86", PerfClock())
    CHOICES.keep_if_writable(["x86", False], *engine_choice._of_engine(lite0))  # as a version before this rule kept it
    assert open_network(lite0, "auto", PerfClock())[0] in candidates(has_floats=False)
    assert "x86" not in [finding.name for finding in engine_findings("lite0", PerfClock())]


@pytest.mark.parametrize("groups", [1, 128])
def test_exact_engines_add_exactly(groups):
    """The largest numbers, of which engines that add pairs of products in 16 bits lose a part."""
    generator = torch.Generator().manual_seed(0)
    x = 255.0 * torch.randint(2, (1, 128, 8, 8), generator=generator)
    weight = 127.0 * torch.randint(-1, 2, (128, 128 // groups, 3, 3), generator=generator)
    wanted = torch.conv2d(x.double(), weight.double(), groups=groups)
    scale = float(wanted.abs().max()) / 127
    assert "x86" not in exact_engines() and {"qnnpack"} & set(available_engines()) <= set(exact_engines())
    for engine in exact_engines():
        with using_engine(engine):
            packed = torch.ops.quantized.conv2d_prepack(
                torch.quantize_per_tensor(weight, 1.0, 0, torch.qint8), None, [1, 1], [0, 0], [1, 1], groups
            )
        got = torch.ops.quantized.conv2d(torch.quantize_per_tensor(x, 1.0, 0, torch.quint8), packed, scale, 128)
        assert (got.dequantize() - wanted).abs().max() <= 0.51 * scale, engine


def test_an_engine_that_raises_is_not_exact(monkeypatch):
    def prepack(*_):
        raise RuntimeError("unknown architecure")  # the words of torch 2.13 on ARM

    monkeypatch.setattr(engines, "_adds_exactly", engines._adds_exactly.__wrapped__)  # nothing is remembered
    monkeypatch.setattr(torch.ops.quantized, "conv2d_prepack", prepack)
    assert exact_engines() == []
    with pytest.raises(
        EngineUnavailable, match="overflows in int8 convolutions on this machine; choose a bundle in fp32"
    ):
        open_network(load_bundle("lite0"), "qnnpack", PerfClock())
    with pytest.raises(EngineUnavailable, match="no engine here computes int8 convolutions exactly"):
        exact_network(load_bundle("lite0"))


def test_a_damaged_cache_is_ignored(tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    CHOICES.path.parent.mkdir(parents=True)
    for content in ("", "[]", '{"x": 1}', '{"x": ["tpu", true]}'):
        CHOICES.path.write_text(content)
        assert open_network(tiny_bundle, "auto", PerfClock())[0] in candidates()


def test_relative_error_of_broken_outputs():
    good = [torch.ones(1, 2)]
    assert relative_error([torch.tensor([[1.0, float("nan")]])], good) == float("inf")
    assert relative_error(good, good) == 0.0
    assert relative_error([torch.tensor([[6.0, 0.0]])], [torch.tensor([[2.0, 0.0]])]) == pytest.approx(2.0)


def test_timing_is_announced_and_done_once(tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said = []
    Session(tiny_bundle, on_timing=lambda: said.append("first"))
    Session(tiny_bundle, on_timing=lambda: said.append("second"))
    assert set(said) == {"first"}

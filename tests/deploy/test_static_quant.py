"""Static int8: bundles of convolutions answer like fp32, on every engine, and say where they would not."""

import pytest
import torch
from torch import nn

from pi_dynn import Preprocess, Session, attach_exits, build_bundle, create_model
from pi_dynn.deploy import builder
from pi_dynn.deploy.builder import int8_kinds, rehearse, usual_precision
from pi_dynn.deploy.calibrated import calibrated_bundle
from pi_dynn.errors import EngineUnavailable, ModelError
from pi_dynn.latency.profile import count_work
from pi_dynn.runtime import engine_choice
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.engine_choice import candidates, open_network, relative_error
from pi_dynn.runtime.engines import available_engines, using_engine
from pi_dynn.runtime.timed_network import TimedNetwork
from tests.networks import small_sequential, tiny_chain, with_trained_norms

SIZE = 32


def images(count: int = 24) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def with_relu6() -> nn.Sequential:
    """Norms between convolution and ReLU6 as in MobileNet, and one ReLU6 that nothing can fuse."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)),
        nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)),
        nn.Sequential(nn.Conv2d(8, 12, 1), nn.ReLU6(), nn.MaxPool2d(2), nn.ReLU6()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)),
    )


class Unsure(nn.Module):
    """A convolution behind a branch on values, which cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if bool(x.sum() > 0) else x


NETWORKS = {
    "branchynet": lambda: create_model("branchynet", num_classes=5, image_size=SIZE, exits=[1, 3]),
    "sequential": lambda: attach_exits(small_sequential(), [1, 2], 5, image_size=SIZE),
    "relu6": lambda: attach_exits(with_relu6(), [0, 1], 5, image_size=SIZE),
}


def static_bundle(model: nn.Module, **kwargs) -> Bundle:
    if not hasattr(model, "name"):
        model.name, model.arguments = "tiny", {}
    given = {"precision": "int8-static", "calibration": images(), "labels": list("abcde")} | kwargs
    exits = model.exit_blocks
    size = Preprocess(size=model.image_size)
    return build_bundle(model, exits=exits, thresholds=[0.5] * len(exits), preprocess=size, **given)


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request):
    """A network, and its bundle in static int8."""
    torch.manual_seed(0)
    model = with_trained_norms(NETWORKS[request.param]())
    return model, static_bundle(model)


@torch.inference_mode()
def test_every_engine_answers_like_fp32(pair):
    model, bundle = pair
    x = images(40)[24:]  # others than the ranges were set with
    wanted = [logits for _, logits, _ in model.forward_exits(x)]
    for engine in candidates(has_floats=False):
        name, network = open_network(bundle, engine, clock=None)
        assert name == engine
        for got, want in zip(network.forward_all(x), wanted, strict=True):
            assert relative_error([got], [want]) < 0.1, engine


@torch.inference_mode()
def test_samples_leave_alone_as_in_a_batch(pair):
    network = pair[1].load_network(available_engines()[-1])
    x = images(12)
    middle = [scores.sort().values[5:7] for scores in network.forward_scored(x)[1][:-1]]
    limits = [float(pair.mean()) for pair in middle]  # between scores: one alone may differ in the last digit
    batch = network.forward_batch(x, limits)
    assert len(set(batch.exit_index.tolist())) > 1
    for i, image in enumerate(x.split(1)):
        alone = network(image, limits)
        assert alone.exit_index == batch.exit_index[i]
        torch.testing.assert_close(alone.logits[0], batch.logits[i])


def test_convolutions_are_in_int8(pair):
    model, bundle = pair
    exits = model.exit_blocks
    labels, size = list("abcde"), Preprocess(size=SIZE)
    wide = build_bundle(
        model, exits=exits, thresholds=[0.5] * len(exits), precision="fp32", labels=labels, preprocess=size
    )
    work = count_work(TimedNetwork(bundle.load_network("qnnpack"), bundle.manifest), images(1), [1.1] * len(exits))
    total, int8 = (sum(getattr(one, name) for one in work.values()) for name in ("macs", "int8_macs"))
    assert int8 > 0.8 * total
    floats = count_work(TimedNetwork(wide.load_network("fp32"), wide.manifest), images(1), [1.1] * len(exits))
    assert total == sum(one.macs for one in floats.values())
    assert bundle.manifest.notes["static_int8"]["kept_in_fp32"] == {}


def test_session_chooses_an_engine_and_has_no_fp32(pair):
    bundle = pair[1]
    session = Session(bundle, threads=1)
    assert session.engine in available_engines()
    assert Session(bundle, threads=1).engine == session.engine  # remembered
    with pytest.raises(EngineUnavailable, match="cannot compute in floats"):
        Session(bundle, threads=1, engine="fp32")


def test_an_engine_that_answers_otherwise_is_refused(pair, monkeypatch):
    bundle = pair[1]
    logits = bundle.manifest.self_test
    broken = [[-value for value in row] for row in logits]
    bundle.manifest.self_test[:] = broken
    try:
        with pytest.raises(EngineUnavailable, match="'qnnpack' is off by 200% against the machine that built it"):
            open_network(bundle, "qnnpack", clock=None)
        monkeypatch.setattr(engine_choice, "_cached_choice", lambda _: None)
        with pytest.raises(EngineUnavailable, match="no engine is accurate enough"):
            Session(bundle, threads=1)
    finally:
        bundle.manifest.self_test[:] = [[-value for value in row] for row in broken]


@torch.inference_mode()
def test_calibration_builds_into_it(pair):
    bundle = pair[1]
    built = calibrated_bundle(bundle, thresholds=[0.3, 0.4], score="margin")
    assert built.manifest.precision == "int8-static" and built.manifest.packed_engine == "qnnpack"
    _, network = open_network(built, "qnnpack", clock=None)  # passes its own test
    before = bundle.load_network("qnnpack").forward_all(images(4))
    assert relative_error(network.forward_all(images(4)), before) < 1e-5


def test_what_cannot_be_traced_stays_in_fp32():
    torch.manual_seed(0)
    plain = small_sequential()
    chain = nn.Sequential(plain[0], plain[1], plain[2], Unsure(), plain[4])
    bundle = static_bundle(with_trained_norms(attach_exits(chain, [1, 2], 5, image_size=SIZE)))
    kept = bundle.manifest.notes["static_int8"]["kept_in_fp32"]
    assert list(kept) == ["stage 2"] and "control flow" in kept["stage 2"]
    assert Session(bundle, threads=1).classify(images(1)[0], thresholds=2.0).exit_index == 2


def test_qnnpack_still_needs_clamps_fused():
    """The day this fails, ReLU6 may stay as it is."""
    x = (torch.randn(1, 8, 5, 5) * 4).contiguous(memory_format=torch.channels_last)
    quantised = torch.quantize_per_tensor(x, 0.1, 100, torch.quint8)
    with using_engine("qnnpack"):
        clamped = nn.functional.relu6(quantised).dequantize()
    assert not torch.equal(clamped, nn.functional.relu6(quantised.dequantize()))


def test_refusals(monkeypatch):
    model = with_trained_norms(NETWORKS["sequential"]())
    with pytest.raises(ModelError, match="go together"):
        static_bundle(model, calibration=None)
    with pytest.raises(ModelError, match="go together"):
        static_bundle(model, precision="fp32")
    recnext = tiny_chain("recnext", exits=[3], image_size=SIZE)
    with pytest.raises(ModelError, match=r"no stage .* has a static int8 form \(TraceError"):
        static_bundle(recnext)
    monkeypatch.setattr(builder, "STATIC_LIMIT", 1e-6)
    with pytest.raises(ModelError, match=r"static int8 is off by \d+% at exit \d and agrees with fp32 on \d+%"):
        static_bundle(model)


def test_a_rehearsal_says_before_training_what_would_not_be_quantised(monkeypatch):
    recnext = tiny_chain("recnext", exits=[3], image_size=SIZE)
    recnext.name = "tiny"
    with pytest.raises(ModelError, match=r"in int8-static, so nothing is trained: no stage .* \(TraceError"):
        rehearse(recnext, "int8-static", images(4), trained=True)
    chain = create_model("branchynet", num_classes=5, image_size=SIZE, exits=[1, 3])
    with pytest.raises(ModelError, match=r"no bundle in int8, so nothing is trained: the convolutions of"):
        rehearse(chain, "int8", images(4), trained=True)
    for precision in ("int8-static", "fp32"):
        rehearse(chain, precision, images(4), trained=False)
    assert not chain.bn1.running_mean.any()  # nothing of it is left in the network
    monkeypatch.setattr(builder, "STATIC_LIMIT", 1e-6)
    rehearse(chain, "int8-static", images(4), trained=False)  # how far off is of no interest yet
    with pytest.raises(ModelError, match=r"static int8 is off by \d+%"):
        rehearse(with_trained_norms(chain), "int8-static", images(4), trained=True)


def test_a_gfnet_has_int8_without_rehearsal(tiny_model):
    rehearse(tiny_model, usual_precision(tiny_model), images(1), trained=True)
    assert int8_kinds(tiny_model) == ["int8", "int8-static", "onnx"]
    assert int8_kinds(tiny_chain("recnext", exits=[3], image_size=SIZE)) == ["onnx"]
    assert int8_kinds(tiny_chain("lsnet", exits=[3])) == ["onnx"]
    assert usual_precision(tiny_chain("lsnet", exits=[3])) == "int8-static"

"""ONNX graphs answer like the network they were made of; every family has them."""

import pytest
import torch

from pi_dynn import Preprocess, Session, attach_exits, build_bundle
from pi_dynn.errors import ModelError
from pi_dynn.models import create_model
from pi_dynn.runtime.engine_choice import relative_error
from pi_dynn.runtime.onnx_network import FULL_DEPTH, stage_file
from tests.networks import random_gfnet, small_sequential, tiny_chain, with_trained_norms

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from pi_dynn.deploy.onnx import LastStage, exported, onnx_bundle, without_writes_into_views  # noqa: E402 - after the packages it needs

FAMILIES = {
    "gfnet": lambda: random_gfnet(image_size=32, num_classes=5, exits=[1, 4]),
    "distilled": lambda: random_gfnet(
        image_size=32, num_classes=5, exits=[1, 4], distilled=True, exit_heads="cls+dist"
    ),
    "pyramid": lambda: random_gfnet("gfnet_h_ti", image_size=64, num_classes=5, exits=[2, 7]),
    "recnext": lambda: tiny_chain("recnext", exits=[1, 4], distilled=True),
    "recnext_share_channel": lambda: tiny_chain("recnext_share_channel", exits=[1, 4]),
    "lsnet": lambda: tiny_chain("lsnet", exits=[1, 4]),
    "branchynet": lambda: with_trained_norms(create_model("branchynet", num_classes=5, image_size=32, exits=[1, 4])),
    "b_alexnet": lambda: create_model("b_alexnet", num_classes=5, image_size=32, exits="all").eval(),
    "mobilenet_v3_small": lambda: with_trained_norms(
        create_model("mobilenet_v3_small", num_classes=5, image_size=64, exits=[2])
    ),
    "sequential": lambda: attach_exits(with_trained_norms(small_sequential()), [1, 3], 5, image_size=32).eval(),
}


def bundle_of(model, precision="fp32"):
    exits = model.exit_blocks
    if not hasattr(model, "name"):
        model.name, model.arguments = "tiny", {}
    return build_bundle(
        model,
        exits=exits,
        thresholds=[0.5] * len(exits),
        precision=precision,
        labels=list("abcde"),
        preprocess=Preprocess(size=model.image_size),
    )


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_graphs_answer_like_the_training_form(family):
    model = FAMILIES[family]().eval()
    converted = onnx_bundle(bundle_of(model))
    x = torch.randn(2, 3, model.image_size, model.image_size)
    session = Session(converted, threads=1)
    assert session.engine == "onnxruntime"
    logits, scores = session.forward_scored(x)
    for (_, want, gate), got, score in zip(model.forward_exits(x), logits, scores, strict=True):
        assert relative_error([got], [want]) < 1e-4
        torch.testing.assert_close(score.float(), torch.sigmoid(gate) if gate.min() < 0 else gate, rtol=0, atol=1e-4)
    whole = onnxruntime.InferenceSession(converted.read(FULL_DEPTH), providers=["CPUExecutionProvider"])
    answer = whole.run(None, {"input": x[:1].numpy()})[0]
    assert relative_error([torch.from_numpy(answer)], [model(x[:1])]) < 1e-4


def test_graphs_are_plain_onnx(tiny_bundle):
    converted = onnx_bundle(tiny_bundle, "fp32")
    graphs = [onnx.load_from_string(converted.read(name)) for name in (*map(stage_file, range(4)), FULL_DEPTH)]
    for graph in graphs:
        onnx.checker.check_model(graph, full_check=True)
        used = {node.op_type for node in graph.graph.node}
        assert not used & {"DFT", "If", "Loop"} and {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    assert [output.name for output in graphs[-1].graph.output] == ["logits"]


def test_int8_has_the_weights_of_the_bundle_and_leaves_heads_alone(tiny_bundle):
    converted = onnx_bundle(tiny_bundle)
    manifest = converted.manifest
    assert (manifest.precision, manifest.format, manifest.thresholds) == (
        "int8",
        "onnx",
        tiny_bundle.manifest.thresholds,
    )
    assert len(converted.data) < 0.5 * len(onnx_bundle(tiny_bundle, "fp32").data)
    graph = onnx.load_from_string(converted.read(stage_file(0))).graph
    quantised = [node.name for node in graph.node if node.op_type == "MatMulInteger"]
    assert len(quantised) == 1 + 2 * 2 and not [name for name in quantised if name.startswith(("/head", "/gate"))]
    x = torch.randn(1, 3, 32, 32)
    expected = Session(tiny_bundle, threads=1, engine="fp32").forward_all(x)
    assert relative_error(Session(converted, threads=1).forward_all(x), expected) < 0.05


class WritesIntoParts(torch.nn.Module):
    """Adds each half of its input to the other, in place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (x * 2.0).view(2, 2, 3)
        y.select(1, 0).add_(y.select(1, 1))
        y.select(1, 1).addcmul_(y.select(1, 0), y.select(1, 1))
        return y.view(2, 6)


@torch.no_grad()
def test_writes_into_parts_of_a_tensor_reach_the_graph():
    """The exporter alone would leave them out and say nothing."""
    x = torch.randn(2, 6)
    stage = torch.jit.script(WritesIntoParts().eval())
    part = LastStage(without_writes_into_views(stage, x), torch.nn.Identity(), [2, 6])
    graph = exported(part, x, ["logits"]).SerializeToString()
    answer = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(answer[0]), stage(x))


def test_what_cannot_be_converted_is_refused_in_words(tiny_bundle):
    with pytest.raises(ModelError, match="in ONNX already"):
        onnx_bundle(onnx_bundle(tiny_bundle))
    with pytest.raises(ModelError, match="int8 needs real images"):
        onnx_bundle(bundle_of(FAMILIES["recnext"]()), "int8")


@torch.inference_mode()
def test_static_int8_answers_almost_like_the_network():
    """Also where an image stopped early while the ranges were set, every stage saw it."""
    bundle = bundle_of(FAMILIES["branchynet"]())
    images = torch.rand(12, 3, 32, 32)
    converted = onnx_bundle(bundle, "int8", images)
    assert converted.manifest.precision == "int8"
    expected, answers = (Session(one, threads=1).forward_all(images) for one in (bundle, converted))
    assert relative_error(answers, expected) < 0.1
    graph = onnx.load_from_string(converted.read(stage_file(1))).graph
    into = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions and all(set(node.input[:2]) <= into for node in convolutions if node.name.startswith("/stage"))


def test_writes_into_views_are_found_inside_branches():
    model = random_gfnet(image_size=128, num_classes=5, exits=None)  # its filter is the separable one
    bundle = build_bundle(model, exits=[], thresholds=[], labels=list("abcde"), preprocess=Preprocess(size=128))
    stage, tokens = bundle.load_network("fp32").last_stage, torch.randn(1, 64, 192)
    assert stage.graph.findAllNodes("aten::addcmul_")
    plain = without_writes_into_views(stage, tokens)
    assert not plain.inlined_graph.findAllNodes("aten::addcmul_")
    assert torch.allclose(plain(tokens), stage(tokens), atol=1e-4)

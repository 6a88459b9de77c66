"""A network with marks: the same answers, the right steps, for every family."""

import pytest
import torch

from pi_dynn import Preprocess, Session, build_bundle
from pi_dynn.latency.profile import count_work
from pi_dynn.models import create_model
from tests.networks import random_gfnet

GFNET = {"image_size": 32, "num_classes": 5, "exits": [1, 4]}


def session_of(model, precision="int8"):
    count = len(model.exit_blocks)
    bundle = build_bundle(
        model,
        exits=model.exit_blocks,
        thresholds=[0.5] * count,
        precision=precision,
        labels=[str(i) for i in range(model.num_classes)],
        preprocess=Preprocess(size=model.image_size),
    )
    return Session(bundle, threads=1, engine="fp32")


def kinds(session):
    return [(step.kind, step.block_index) for step in session.timed_network().steps]


def blocks(first, last):
    return [(kind, block) for block in range(first, last + 1) for kind in ("filter", "MLP")]


def check(block):
    return [("exit norm", block), ("head", block), ("gate", block)]


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_steps_of_a_gfnet(precision):
    steps = kinds(session_of(random_gfnet(**GFNET), precision))
    assert steps[:2] == [("patch embedding", None), ("position", None)]
    assert steps[2:] == [
        *blocks(0, 1),
        *check(1),
        *blocks(2, 4),
        *check(4),
        *blocks(5, 11),
        ("final norm", 11),
        ("final head", 11),
    ]


def test_steps_of_a_distilled_gfnet():
    steps = kinds(session_of(random_gfnet(**GFNET, distilled=True, exit_heads="cls+dist")))
    assert [kind for kind, _ in steps[:4]] == ["patch embedding", "position", "tokens", "filter"]


def test_stages_of_a_convolutional_network():
    model = create_model("branchynet", num_classes=10, image_size=32, exits="all").eval()
    session = session_of(model, "fp32")
    steps = kinds(session)
    assert {kind for kind, _ in steps} <= {"stage", "block", "exit norm", "head", "gate", "final norm", "final head"}
    assert steps[0] == ("block", 0)  # its stem does nothing
    assert [block for kind, block in steps if kind == "gate"] == model.exit_blocks
    assert steps[-1] == ("final head", model.depth - 1)


@pytest.mark.parametrize("k", range(4))
def test_marks_change_no_answer_and_end_where_the_network_left(tiny_bundle, k):
    session = Session(tiny_bundle, threads=1, engine="qnnpack")
    network, x, limits = session.timed_network(), torch.randn(1, 3, 32, 32), session.forced_thresholds(k)
    run = network.run(x, limits)
    assert run.exit_index == session.answer(x, limits)[1] == k
    numbers = [number for number, _, _ in run.times]
    assert numbers == list(range(len(numbers)))  # a full answer's order, broken off at the exit
    last = network.steps[numbers[-1]]
    assert last.kind == ("final head" if k == 3 else "gate") and last.block_index == session.manifest.blocks[k]
    assert all(stop >= start for _, start, stop in run.times)
    assert all(one.stop_ns == other.start_ns for one, other in zip(run.times, run.times[1:], strict=False))


def test_operations_inside_the_steps_of_a_gfnet():
    session = session_of(random_gfnet(**GFNET))
    inside: dict = {}
    for kind, block, operation in session.timed_network(inside=True).steps:
        inside.setdefault((kind, block), []).append(operation)
    assert list(inside) == kinds(session)
    assert inside["filter", 0] == ["norm", "forward transform", "weight", "inverse transform"]
    assert inside["MLP", 11] == ["norm", "linear 1", "GELU", "linear 2", "residual"]
    assert inside["head", 4] == ["linear"]
    assert inside["gate", 4][1:] == ["softmax", "top-k", "entropy", "linear", "comparison"]


@pytest.mark.parametrize("k", [0, 2])
def test_marks_inside_change_no_answer(k):
    session = session_of(random_gfnet(**GFNET))
    network, x, limits = session.timed_network(inside=True), torch.randn(1, 3, 32, 32), session.forced_thresholds(k)
    run = network.run(x, limits)
    assert run.exit_index == session.answer(x, limits)[1] == k
    assert [number for number, _, _ in run.times] == list(range(len(run.times)))


def test_every_convolution_of_a_stage_is_an_operation():
    model = create_model("efficientnet_lite0", num_classes=10, image_size=32, exits=[3]).eval()
    steps = session_of(model, "fp32").timed_network(inside=True).steps
    convolutions = [step.operation for step in steps if step.kind == "stage" and step.block_index == 3]
    assert "addition" in convolutions and "convolution 8" in convolutions


def test_the_stem_of_a_convolutional_network_has_its_own_work():
    session = session_of(create_model("efficientnet_lite0", num_classes=10, image_size=32, exits=[3]).eval(), "fp32")
    network = session.timed_network()
    work = count_work(network, torch.zeros(1, 3, 32, 32), session.forced_thresholds(1))
    assert network.steps[0] == ("stem", None, "") and work[0].macs == 16 * 16 * 32 * 27

"""A bundle answers like the network it was built from, whatever it went through."""

import pytest
import torch

from pi_dynn import Preprocess, Session, build_bundle
from pi_dynn.deploy.builder import deploy_form, script_and_freeze
from pi_dynn.errors import ModelError
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.engine_choice import relative_error
from pi_dynn.runtime.engines import available_engines
from pi_dynn.runtime.torchscript import quantised_layers
from tests.networks import random_gfnet

NETWORKS = {
    "plain": {"exits": [1, 4, 8]},
    "plain, no exits": {"exits": None},
    "distilled, cls exits": {"exits": [1, 4, 8], "distilled": True},
    "distilled, cls+dist exits": {"exits": [1, 4, 8], "distilled": True, "exit_heads": "cls+dist"},
    "pyramid": {"name": "gfnet_h_ti", "exits": [2, 5, 9]},
}


def between(scores: torch.Tensor) -> float:
    """A threshold that about half of the scores reach, none of them by a rounding error."""
    ordered = scores.sort().values
    return float(ordered[len(ordered) // 2 - 1 : len(ordered) // 2 + 1].mean())


@pytest.fixture(scope="module", params=NETWORKS, ids=list(NETWORKS))
def network(request):
    return random_gfnet(image_size=32, num_classes=6, **NETWORKS[request.param])


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def expected(network, images):
    with torch.no_grad():
        return network.forward_exits(images)


@pytest.fixture(scope="module", params=["fp32", "int8", "int8-static"])
def bundle(network, request) -> Bundle:
    return bundle_of(network, request.param)


def bundle_of(network, precision: str) -> Bundle:
    return build_bundle(
        network,
        exits=network.exit_blocks,
        thresholds=[0.5] * len(network.exit_blocks),
        precision=precision,
        labels=list("abcdef"),
        preprocess=Preprocess(size=32),
        calibration=None
        if precision != "int8-static"
        else torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)),
    )


@torch.no_grad()
def test_fp32_scripted_frozen_and_reloaded_equal_the_training_form(network, images, expected):
    logits = [z for _, z, _ in expected]
    gates = [gate.double() for _, _, gate in expected]
    deployed = deploy_form(network, network.exit_blocks, "fp32", None)
    forms = {
        "deployed": deployed,
        "scripted": torch.jit.script(deployed),
        "frozen": script_and_freeze(deployed),
        "reloaded": bundle_of(network, "fp32").load_network("fp32"),
    }
    for name, form in forms.items():
        for got, want in zip(form.forward_all(images), logits, strict=True):
            assert relative_error([got], [want]) < 1e-4, name
        for got, want in zip(form.forward_scored(images)[1], gates, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@torch.no_grad()
def test_one_file_runs_under_every_engine(bundle, images, expected):
    engines = ["fp32"] if bundle.manifest.precision == "fp32" else [*available_engines(), "fp32"]
    for engine in engines:
        loaded = bundle.load_network(engine)
        for layer in quantised_layers(loaded):
            layer.reduce_range = engine in ("x86", "onednn")
        for got, (_, want, _) in zip(loaded.forward_all(images), expected, strict=True):
            # random weights: what int8 costs a trained network is measured on real images
            assert relative_error([got], [want]) < (1e-4 if bundle.manifest.precision == "fp32" else 0.15), engine


@torch.no_grad()
def test_every_way_to_run_leaves_at_the_same_exit(bundle, images):
    network = bundle.load_network("fp32" if bundle.manifest.precision == "fp32" else "qnnpack")
    logits, scores = network.forward_scored(images)
    limits = [between(score) for score in scores[:-1]]
    together = network.forward_batch(images, limits)
    # ARM computes the fp32 convolutions of a pyramid otherwise in a batch, and int8 after them rounds to a neighbour.
    convolutions_before_int8 = bundle.manifest.model.startswith("gfnet_h") and bundle.manifest.precision != "fp32"
    tolerance = 0.03 if convolutions_before_int8 else 1e-5
    for i, image in enumerate(images.split(1)):
        k = next((k for k, limit in enumerate(limits) if scores[k][i] >= limit), len(limits))
        alone = network(image, limits)
        assert alone.exit_index == together.exit_index[i] == k
        assert relative_error([alone.logits], [logits[k][i : i + 1]]) < tolerance
        assert relative_error([together.logits[i : i + 1]], [logits[k][i : i + 1]]) < tolerance
        features = network.start(image)
        for step in range(k + 1):
            features, stepped, _ = network.advance(features, step)
        assert relative_error([stepped], [logits[k][i : i + 1]]) < tolerance


def test_manifest_says_what_it_is(tiny_bundle):
    manifest = tiny_bundle.manifest
    assert (manifest.model, manifest.precision) == ("gfnet_12_192", "int8")
    assert manifest.labels == list("abcde")
    assert manifest.blocks == [1, 4, 8, 11]
    assert manifest.macs == sorted(manifest.macs)
    assert manifest.arguments["image_size"] == 32


def test_fewer_exits_than_trained(tiny_model, images):
    bundle = build_bundle(
        tiny_model, exits=[4], thresholds=[0.5], precision="fp32", labels=list("abcde"), preprocess=Preprocess(size=32)
    )
    with torch.no_grad():
        (_, _, _), (_, want, _), (_, _, _), (_, last, _) = tiny_model.forward_exits(images)
    first, second = Session(bundle, threads=1).forward_all(images)
    assert relative_error([first, second], [want, last]) < 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exits": [2], "thresholds": [0.5]}, "among the trained ones"),
        ({"exits": [4, 1], "thresholds": [0.5, 0.5]}, "must rise"),
        ({"thresholds": [0.5]}, "as many thresholds"),
        ({"labels": ["a"]}, "5 classes, got 1 labels"),
        ({"precision": "int4"}, "int4"),
        ({"preprocess": Preprocess(size=64)}, "takes 32 px"),
    ],
)
def test_arguments_that_do_not_fit(tiny_model, change, message):
    arguments = {
        "exits": [1, 4],
        "thresholds": [0.5, 0.5],
        "labels": list("abcde"),
        "preprocess": Preprocess(size=32),
    } | change
    with pytest.raises(ModelError, match=message):
        build_bundle(tiny_model, **arguments)

"""Bundles of chain networks answer like the network they were built from."""

import pytest
import torch

from pi_dynn import Preprocess, Session, attach_exits, build_bundle
from pi_dynn.data.torchvision_ops import torchvision
from pi_dynn.deploy.builder import assert_parity, deploy_chain
from pi_dynn.errors import ModelError
from pi_dynn.runtime.engine_choice import relative_error
from tests.networks import small_sequential, tiny_chain, with_trained_norms

EXITS = [1, 3, 4]
NETWORKS = {
    "recnext_share_channel": lambda: tiny_chain("recnext_share_channel", exits=EXITS),
    "lsnet": lambda: tiny_chain("lsnet", exits=EXITS, distilled=True),
    "sequential": lambda: attach_exits(small_sequential(), [1, 3], 5, image_size=64),
    "resnet": lambda: attach_exits(short_resnet(), [0, 2], 5, image_size=64),
}


def short_resnet():
    models = torchvision.models.resnet
    return models.ResNet(models.BasicBlock, [1, 1, 1, 1], num_classes=5)


def bundle_of(model, exits, **kwargs):
    if not hasattr(model, "name"):
        model.name, model.arguments = "tiny", {}
    arguments = {"precision": "fp32", "labels": list("abcde"), "preprocess": Preprocess(size=64)} | kwargs
    return build_bundle(model, exits=exits, thresholds=[0.5] * len(exits), **arguments)


@pytest.mark.parametrize("network", NETWORKS)
@torch.inference_mode()
def test_bundles_answer_like_the_training_form(network):
    """With an exit in the middle of a group that shares channels, and fewer exits than were trained."""
    torch.manual_seed(0)
    model = with_trained_norms(NETWORKS[network]())
    x = torch.randn(3, 3, 64, 64)
    chosen = [model.exit_blocks[0], model.exit_blocks[-1]]
    bundle = bundle_of(model, chosen)
    expected = [logits for block, logits, _ in model.forward_exits(x) if block in (*chosen, model.depth - 1)]
    network = bundle.load_network("fp32")
    for got, want in zip(network.forward_all(x), expected, strict=True):
        assert relative_error([got], [want]) < 1e-4
    scores = network.forward_scored(x)[1]
    limits = [float(scores[0].sort().values[:2].mean()), 2.0]  # not a rounding error away from any score
    batch = network.forward_batch(x, limits)
    for i, image in enumerate(x.split(1)):
        alone = network(image, limits)
        assert alone.exit_index == batch.exit_index[i]
        assert relative_error([alone.logits], [expected[alone.exit_index][i : i + 1]]) < 1e-4
    assert sorted(batch.exit_index.tolist()) == [0, 0, 2]


def test_manifest_and_session():
    bundle = bundle_of(tiny_chain("lsnet", exits=[1, 3]), [1, 3])
    assert bundle.manifest.blocks == [1, 3, 6]
    assert bundle.manifest.macs == sorted(bundle.manifest.macs)
    answer = Session(bundle, threads=1).classify(torch.randn(3, 64, 64), thresholds=0.0)
    assert (answer.exit_index, answer.block_index) == (0, 1)


def test_int8_is_refused_in_words():
    with pytest.raises(ModelError, match='convolutions of LSNet have no int8 form: pass precision="int8-static"'):
        bundle_of(tiny_chain("lsnet"), [], precision="int8")


@torch.no_grad()
def test_a_folded_network_that_answers_otherwise_is_refused():
    model = tiny_chain("recnext", exits=[1])
    network = deploy_chain(model, [1])
    network.heads[0].bias += 1.0
    with pytest.raises(ModelError, match="after block 1"):
        assert_parity(model, network, [1])
    model.stem.stem[0].conv.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="are its weights finite"):
        deploy_chain(model, [1])

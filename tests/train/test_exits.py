"""Heads and gates: losses by hand, cached features, patience per head, and both halves of the stage."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import ModelError
from pi_dynn.models import create_model
from pi_dynn.models.card import Card
from pi_dynn.models.gfnet import GFNet, GFNetSize
from pi_dynn.models.macs import count_macs
from pi_dynn.train.batches import Order, TensorBatches
from pi_dynn.train.engine import Callback, RunContext, fit
from pi_dynn.train.exits import (
    Bilevel,
    HeadWarmup,
    best_exit,
    cross_entropies,
    gate_loss,
    gate_targets,
    leaving_probabilities,
    positive_weights,
    warmup_loss,
    weighted_classifier_loss,
)
from pi_dynn.train.features import ExitFeatures, backbone_sha256, cached_features, collect_features
from pi_dynn.train.recipe import Recipe
from pi_dynn.train.run_folder import RunFolder
from tests.networks import random_gfnet

CARD = Card("gfnet_12_192", {}, ["a", "b", "c"], Preprocess(4))


def test_cross_entropies_by_hand():
    even, sure = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]])
    assert cross_entropies([even, sure], torch.tensor([0])).flatten().tolist() == pytest.approx(
        [math.log(2), math.log(4)]
    )


def test_warmup_weights_fall_from_the_first_exit_to_one():
    ce = torch.tensor([[1.0, 3.0], [10.0, 10.0], [100.0, 300.0]])  # means 2, 10, 200; G = 3
    assert float(warmup_loss(ce)) == pytest.approx(3 * 2 + 2 * 10 + 1 * 200)


def test_the_best_exit_weighs_loss_against_cost():
    ce = torch.tensor([[1.0, 0.1, 3.0], [0.4, 0.05, 2.9], [0.2, 0.0, 0.1]])
    costs = torch.tensor([0.2, 0.6, 1.0])
    # trade-off 1: sums 1.2 1.0 1.2 | 0.3 0.65 1.0 | 3.2 3.5 1.1
    assert best_exit(ce, costs, 1.0).tolist() == [1, 0, 2]
    assert best_exit(ce, costs, 0.0).tolist() == [2, 2, 2]
    assert best_exit(ce, costs, 100.0).tolist() == [0, 0, 0]


def test_gates_are_to_open_from_the_best_exit_on():
    targets = gate_targets(torch.tensor([0, 1, 2, 3]), 3)  # 3: the final answer, no gate opens
    assert targets.T.tolist() == [[True, True, True], [False, True, True], [False, False, True], [False] * 3]


def test_positive_weights_balance_up_to_five():
    # (100 - 50) / 50, (100 - 90) / 90, (100 - 10) / 10 capped, none: 100 / 0.1 capped
    weights = positive_weights(torch.tensor([50, 90, 10, 0]), 100)
    assert weights.tolist() == pytest.approx([1.0, 1 / 9, 5.0, 5.0])


def test_gate_loss_by_hand():
    """At a gate of one half both outcomes cost ln 2; an open target counts with its weight."""
    targets = torch.tensor([[True, False], [True, True]])
    loss = gate_loss(torch.zeros(2, 2), targets, torch.tensor([3.0, 0.5]))
    assert float(loss) == pytest.approx(math.log(2) * (3 + 1 + 0.5 + 0.5) / 4)
    opened = gate_loss(torch.tensor([[math.log(3)]]), torch.tensor([[True]]), torch.tensor([2.0]))
    assert float(opened) == pytest.approx(2 * math.log(4 / 3))


def test_leaving_probabilities_are_what_is_left_by_the_gates_before():
    gates = torch.tensor([[0.3, 0.9, 0.0], [0.5, 0.4, 1.0], [0.6, 0.7, 1.0]])
    expected = [[0.3, 0.9, 0.0], [0.5, 0.1, 1.0], [0.2, 0.0, 0.0]]
    torch.testing.assert_close(leaving_probabilities(gates), torch.tensor(expected))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_leaving_probabilities_never_exceed_one(values):
    p = leaving_probabilities(torch.tensor(values)[:, None])
    assert (p >= 0).all() and float(p.sum()) <= 1 + 1e-6


def test_classifier_loss_by_hand_has_the_value_of_the_plain_mean():
    ce = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    gates = torch.tensor([[0.25, 0.5], [0.5, 0.25]])
    # sample 0: weighted 0.25 + 1.5 = 1.75, ratio 4 / 1.75; the sum is brought back to 4, and to 6 for sample 1
    assert float(weighted_classifier_loss(ce, gates)) == pytest.approx((4 + 6) / 4)


def test_classifier_loss_lets_the_weights_reach_the_gradient():
    """With the ratio inside the graph every gradient would be 1/4 here: the quirk of the published code."""
    ce = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    gates = torch.tensor([[0.25, 0.5], [0.5, 0.25]], requires_grad=True)
    weighted_classifier_loss(ce, gates).backward()
    expected = [[0.25 * 4 / 1.75 / 4, 0.5 * 6 / 2.0 / 4], [0.5 * 4 / 1.75 / 4, 0.25 * 6 / 2.0 / 4]]
    torch.testing.assert_close(ce.grad, torch.tensor(expected))
    assert gates.grad is None


def test_a_sample_no_gate_lets_go_teaches_nothing():
    ce = torch.tensor([[1.0], [2.0]], requires_grad=True)
    loss = weighted_classifier_loss(ce, torch.zeros(2, 1))
    loss.backward()
    assert loss.item() == 0.0 and ce.grad.abs().max() == 0


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(48) % 3
    x = torch.randn(48, 3, 32, 32, generator=generator)
    x[torch.arange(48), y] += 1.5
    return x, y


def small() -> GFNet:
    """Ten narrow blocks, exits after three of them; always the same weights."""
    torch.manual_seed(0)
    return GFNet(GFNetSize(dim=24, depth=10), num_classes=3, image_size=32, exits=[1, 5, 8]).eval()


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"distilled": True},
        {"distilled": True, "exit_heads": "cls+dist"},
        {"name": "gfnet_h_ti"},
    ],
    ids=["plain", "distilled", "both heads", "pyramid"],
)
def test_heads_answer_from_features_as_in_the_network(model, images):
    model = random_gfnet(image_size=32, num_classes=3, exits=[1, 5, 8], **model)
    x, y = images
    features = collect_features(model, zip(x.split(20), y.split(20), strict=True))
    stage = HeadWarmup(model, features)
    logits, labels = stage.held_out_logits(model)
    assert torch.equal(labels, y)
    with torch.no_grad():
        for ours, (_, theirs, _) in zip(logits, model.forward_exits(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_network_without_exits_has_no_features():
    with pytest.raises(ModelError, match="no exit heads"):
        collect_features(create_model("gfnet_12_192", num_classes=3, image_size=32), [])


def test_features_are_computed_once_per_key(tmp_path, images):
    model = small()
    calls = []

    def compute():
        calls.append(1)
        return collect_features(model, [(images[0][:6], images[1][:6])])

    path = tmp_path / "features.safetensors"
    first = cached_features(path, {"backbone": "a"}, compute)
    again = cached_features(path, {"backbone": "a"}, compute)
    assert len(calls) == 1
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first.flat(), again.flat(), strict=True))
    cached_features(path, {"backbone": "b"}, compute)
    path.write_bytes(path.read_bytes()[:100])  # a damaged cache is no cache
    cached_features(path, {"backbone": "b"}, compute)
    assert len(calls) == 3


def test_the_hash_of_the_backbone_knows_the_backbone_alone():
    model = small()
    before = backbone_sha256(model)
    model.intermediate_heads[0].weight.data += 1
    model.gates[1].linear.bias.data += 1
    assert backbone_sha256(model) == before
    model.blocks[3].mlp.fc1.bias.data[0] += 1
    assert backbone_sha256(model) != before


@pytest.fixture(scope="module")
def features(images):
    x, y = images
    return collect_features(small(), [(x, y)])


def batches(features: ExitFeatures, size: int = 16):
    return TensorBatches(features.flat(), Order(len(features.labels), size, 0))


def test_warmup_teaches_the_heads_and_nothing_else(features):
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    stage = HeadWarmup(model, features, patience=50)
    fitted = fit(stage, batches(features), Recipe(epochs=12, lr=0.02, final_lr=0.0, batch_size=16))
    assert fitted.history[-1]["loss"] < 0.5 * fitted.history[0]["loss"]
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) != key.startswith("intermediate_heads"), key


def test_a_head_that_gets_no_better_is_put_back_and_frozen():
    model = small()
    stage = HeadWarmup(model, ExitFeatures([], torch.zeros(0), torch.zeros(0)), patience=2)
    names = [f"acc_{block}" for block in model.exit_blocks]

    def epoch(*accuracies):
        for k, head in enumerate(model.intermediate_heads):
            head.bias.data.fill_(10 * epoch.number + k)
        epoch.number += 1
        return stage.end_epoch(dict(zip(names, accuracies, strict=True)))

    epoch.number = 0
    assert not epoch(0.5, 0.5, 0.5)
    assert not epoch(0.4, 0.6, 0.5)
    assert not epoch(0.5, 0.5, 0.6)  # exit 0: twice no better than its best, of the first epoch
    assert [head.bias.requires_grad for head in model.intermediate_heads] == [False, True, True]
    assert model.intermediate_heads[0].bias[0] == 0.0
    assert not epoch(0.9, 0.6, 0.5)  # too late for exit 0; exit 1 is frozen as after the second epoch
    assert model.intermediate_heads[1].bias[0] == 11.0
    other = HeadWarmup(small(), stage.held_out, patience=2)
    other.recall(stage.memory())
    assert [head.bias.requires_grad for head in other.model.intermediate_heads] == [False, False, True]
    assert epoch(0.0, 0.0, 0.6)  # all are frozen now
    stage.restore_best()
    assert [float(head.bias[0]) for head in model.intermediate_heads] == [0.0, 11.0, 22.0]


def costs_of(model):
    table = count_macs(model, 32)
    return [answer.macs / table.total for answer in table.exits]


def test_turns_begin_with_the_gates_and_alternate(features):
    model = small()
    stage = Bilevel(model, features, costs_of(model), turn=2)
    stage.begin_epoch(0)
    moved = []
    for _ in range(6):
        model.zero_grad()
        stage(*features.flat()).backward()
        moved.append((model.gates[0].linear.weight.grad is not None, model.intermediate_heads[0].bias.grad is not None))
    gates, heads = (True, False), (False, True)
    assert moved == [gates, gates, heads, heads, gates, gates]


def test_gates_alone_leave_the_heads_as_they_are(features):
    model = small()
    before = model.intermediate_heads[0].weight.clone()
    stage = Bilevel(model, features, costs_of(model), turn=1, gates_only=True)
    fit(stage, batches(features), Recipe(epochs=2, lr=0.05, batch_size=16))
    assert torch.equal(model.intermediate_heads[0].weight, before)


def test_gate_phase_is_the_loss_of_its_parts(features):
    model = small()
    stage = Bilevel(model, features, costs_of(model), trade_off=0.4)
    stage.positive_weights = torch.tensor([2.0, 3.0, 0.5])
    stage.begin_epoch(0)
    logits, labels = stage.held_out_logits(model)
    ce = torch.stack([F.cross_entropy(z, labels, reduction="none") for z in logits])
    best = (ce + 0.4 * torch.tensor(costs_of(model))[:, None]).argmin(0)
    expected = 0.0
    for k, weight in enumerate([2.0, 3.0, 0.5]):
        value = torch.sigmoid(model.gates[k](logits[k]))
        opens = k >= best
        expected += torch.where(opens, -weight * value.log(), -(1 - value).log()).mean().item() / 3
    assert stage(*features.flat()).item() == pytest.approx(expected, rel=1e-4)


def test_a_larger_trade_off_leaves_earlier(features):
    def mean_cost(trade_off):
        model = small()
        stage = Bilevel(model, features, costs_of(model), trade_off=trade_off, turn=1, gates_only=True)
        recipe = Recipe(epochs=25, lr=0.1, final_lr=0.01, batch_size=48, weight_decay=0.0)
        return fit(stage, batches(features, 48), recipe).history[-1]["mean_cost"]

    assert mean_cost(20.0) < 0.5 < mean_cost(0.0)


def test_positive_weights_follow_the_held_out_images(features):
    model = small()
    stage = Bilevel(model, features, costs_of(model), trade_off=1e6)
    stage.end_epoch({})
    assert stage.positive_weights.tolist() == [0.0, 0.0, 0.0]  # every gate is to open for every image
    stage = Bilevel(model, features, [1.0, 1.0, 1.0, 0.0], trade_off=1e6)
    stage.end_epoch({})
    assert stage.positive_weights.tolist() == [5.0, 5.0, 5.0]


class KilledAt(Callback):
    def __init__(self, step):
        self.left = step

    def on_step(self, steps):
        self.left -= steps
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("half", ["warmup", "bilevel"])
def test_an_interrupted_exits_stage_ends_as_an_undisturbed_one(tmp_path, features, half):
    recipe = Recipe(epochs=3, batch_size=16, lr=0.05, optimizer="sgd", weight_decay=5e-4)

    def run(folder, callback=None):
        model = small()
        if half == "warmup":
            stage = HeadWarmup(model, features, patience=1)
        else:
            stage = Bilevel(model, features, costs_of(model), turn=1)
        fit(
            stage,
            batches(features),
            recipe,
            RunContext(folder=RunFolder(folder, CARD), callback=callback or Callback()),
        )
        return model.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", KilledAt(7))
    resumed = run(tmp_path / "cut")
    assert all(torch.equal(value, whole[key]) for key, value in resumed.items())

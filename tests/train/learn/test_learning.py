"""The pieces of `learn`: the plan, heads on features, fine-tuning. The command is in tests/cli/test_learn.py."""

import numpy as np
import pytest
import torch
from torch import nn

from pi_dynn.evaluate.outputs import ExitOutputs
from pi_dynn.models.mac_table import ExitMacs, LayerMacs, MacTable
from pi_dynn.models.registry import create_model
from pi_dynn.train.batches import Order, TensorBatches
from pi_dynn.train.engine import Callback, RunContext, Trainer
from pi_dynn.train.learn import finish
from pi_dynn.train.learn.fine_tune import EXIT_SHARES, FineTune, join_norms, part_norms, start_network
from pi_dynn.train.learn.finish import accuracy_loss, all_logits, harmless
from pi_dynn.train.learn.plan import (
    ENOUGH_EPOCHS,
    LEAST_EPOCHS,
    MOST_EPOCHS,
    Cost,
    OutOfTime,
    Timekeeper,
    Work,
    epochs_in_all,
    epochs_within,
    finishing_s,
    make_plan,
)
from pi_dynn.train.learn.probe import Heads, Probe, head_inputs
from pi_dynn.train.recipe import Recipe
from tests.learning import register_tiny

WORK = Work(steps=20, train=640, held_out=300, classes=5, ranged=128, viewed=80)
COSTS = {128: Cost(1.0, 0.01), 96: Cost(0.5, 0.005)}


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    register_tiny(monkeypatch, tmp_path)
    torch.manual_seed(0)
    model, start = start_network("tiny", 3, 32)
    assert start["source"] == "a generator" and start["fresh"] == ["_fc", "gates", "intermediate_heads"]
    return model


def test_the_plan_fits_the_time():
    plan = make_plan("tiny", 32, COSTS, WORK, left_s=500, how="auto")
    assert (plan.how, plan.image_size) == ("whole", 128) and plan.estimated_s < 500
    assert make_plan("tiny", 32, COSTS, WORK, left_s=1e5, how="auto").epochs == MOST_EPOCHS
    less = make_plan("tiny", 32, COSTS, WORK, left_s=110, how="auto")
    assert (less.how, less.image_size) == ("whole", 96) and less.epochs >= LEAST_EPOCHS and less.estimated_s < 110
    some = make_plan("tiny", 32, COSTS, WORK, left_s=200, how="auto")  # 6 epochs at 128 px, or twice as many at 96
    assert (some.image_size, some.short) == (96, False) and some.epochs >= ENOUGH_EPOCHS
    least = make_plan("tiny", 32, COSTS, WORK, left_s=40, how="auto")
    assert (least.how, least.epochs, least.short) == ("heads", 0, True) and "too short" in least.reason


def test_few_images_train_heads_only_whatever_the_time():
    few = Work(steps=2, train=20, held_out=20, classes=5, ranged=40, viewed=20)
    plan = make_plan("tiny", 32, COSTS, few, left_s=1e5, how="auto")
    assert plan.how == "heads" and plan.reason.startswith("4 training images a class are too few") and not plan.short
    assert make_plan("tiny", 32, COSTS, few, left_s=1e5, how="whole").how == "whole"
    assert make_plan("tiny", 32, COSTS, WORK, left_s=1e5, how="heads").reason == "as asked"
    asked = make_plan("tiny", 32, COSTS, WORK, left_s=1, how="whole")
    assert (asked.image_size, asked.epochs) == (96, 1)


@pytest.mark.parametrize(
    ("spoilt", "mended", "loss", "noise"), [(0, 0, 0.0, 0.0), (2, 0, 0.02, 0.0141), (5, 4, 0.01, 0.0301)]
)
def test_what_is_lost_is_told_from_noise(spoilt, mended, loss, noise):
    before, after = np.ones(100, bool), np.ones(100, bool)
    before[:mended], after[mended : mended + spoilt] = False, False
    assert accuracy_loss(before, after) == (pytest.approx(loss), pytest.approx(noise, abs=1e-4))


def test_finishing_takes_longer_where_there_is_more_to_judge():
    more = Work(steps=20, train=640, held_out=3000, classes=5, ranged=128, viewed=80)
    assert finishing_s(COSTS[128], more) > finishing_s(COSTS[128], WORK) > finishing_s(COSTS[96], WORK)


def test_a_run_that_goes_on_plans_no_more_than_it_will_train():
    assert epochs_in_all(25, 1e6, 1.0) == MOST_EPOCHS
    assert epochs_in_all(25, 0.0, 1.0) == 26
    assert epochs_in_all(3, 10.0, 1.0) == 3 + epochs_within(10.0, 1.0)


def test_the_timekeeper_ends_training_when_the_time_is_up():
    class Clock:
        now = 0

        def now_ns(self) -> int:
            return self.now

    class Counting(Callback):
        steps = 0

        def on_step(self, steps: int) -> None:
            self.steps += steps

    clock, inner = Clock(), Counting()
    keeper = Timekeeper(clock, 10, inner)
    keeper.on_step(1)
    clock.now = 11
    with pytest.raises(OutOfTime):
        keeper.on_step(1)
    assert inner.steps == 2


def test_the_timekeeper_plans_anew_after_each_epoch(tiny):
    class Clock:
        now = 0

        def now_ns(self) -> int:
            return self.now

    clock = Clock()
    keeper = Timekeeper(clock, 100, Callback())
    stage = FineTune(tiny, (torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 2])))
    trainer = Trainer(stage, TensorBatches((torch.zeros(3),), Order(3, 3, 0)), Recipe(epochs=6), RunContext())
    keeper.keep(trainer)
    planned = []
    for epoch, now in enumerate((10, 50, 98), start=1):
        clock.now = now
        keeper.on_epoch("whole", {"epoch": epoch})
        planned.append(trainer.recipe.epochs)
    assert planned == [1 + 8, 2 + 1, 3]  # fast, slow, and too late for another


def test_exits_stand_where_they_pay_and_cost_little():
    from pi_dynn.models import create_model
    from pi_dynn.models.macs import count_macs
    from pi_dynn.train.learn.fine_tune import exits_worth_having

    whole = create_model("efficientnet_lite0", num_classes=21, image_size=128, exits="all").eval()
    blocks = exits_worth_having(whole)
    assert len(blocks) == len(EXIT_SHARES)
    table = count_macs(whole, 128).keeping(blocks)
    assert all(answer.check_macs < 0.01 * table.total for answer in table.exits)


def test_heads_on_features_answer_as_the_network(tiny):
    x = torch.randn(5, 3, 32, 32)
    features = head_inputs(tiny, x, batch_size=2)
    assert [len(one) for one in features] == [5] * (len(tiny.exit_blocks) + 1)
    answers = Heads(tiny).eval()(features)
    np.testing.assert_allclose(torch.stack(answers).detach().numpy(), all_logits(tiny, x), atol=1e-5)


def test_harm_counts_what_is_spoilt_and_not_what_is_mended():
    right = np.array([[True, False, True, False], [True, True, False, False]])
    assert harmless(right).tolist() == [[True, False, True, True], [True] * 4]


@pytest.mark.parametrize(("least", "kept"), [(0.0, [0, 1, 2]), (0.05, [0, 2]), (0.35, [0]), (0.95, [])])
def test_an_exit_that_answers_hardly_any_image_is_not_kept(monkeypatch, least, kept):
    """Of 100 images 40 are sure after the first exit, 3 more after the second and 30 more after the third."""
    monkeypatch.setattr(finish, "LEAST_ANSWERED", least)
    sure = np.arange(100) < np.array([[40], [43], [73], [100]])
    labels = np.zeros(100, int)
    logits = np.stack([np.where(sure, 1.0, -1.0), np.where(sure, -1.0, 1.0)], -1)  # who is not sure is wrong
    costs = [10, 20, 30, 40]
    layers = [LayerMacs(f"block{k}", "conv", 10, k, is_check=False) for k in range(4)]
    table = MacTable("a network", 32, "multiply-adds", tuple(ExitMacs(k, costs[k], 0) for k in range(4)), tuple(layers))
    leaving = finish.choose_leaving(table, ExitOutputs(logits, np.where(sure, 0.9, 0.3), labels, []))
    assert leaving.kept == kept and leaving.macs == [costs[k] for k in [*kept, 3]]
    assert (
        len(leaving.thresholds) == len(leaving.answered) == len(kept) and len(leaving.outputs.logits) == len(kept) + 1
    )
    assert all(leaving.answered >= least)
    assert leaving.saved == pytest.approx(1 - np.array(leaving.macs)[leaving.exits].mean() / 40)


def test_the_probe_trains_heads_and_nothing_else(tiny):
    before = {key: value.clone() for key, value in tiny.state_dict().items()}
    x, labels = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2])
    features = head_inputs(tiny, x)
    stage = Probe(tiny, (features, labels))
    stage(labels, *features).backward()
    with_gradient = {name.partition(".")[0] for name, p in tiny.named_parameters() if p.grad is not None}
    assert with_gradient == {"intermediate_heads", "_fc"}
    assert stage.evaluate(stage.model)["accuracy"] <= 1.0
    assert all(torch.equal(before[key], value) for key, value in tiny.state_dict().items() if "_blocks" in key)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "torchvision:mobilenet_v2", "torchvision:resnet18"])
def test_joined_norms_answer_and_learn_the_same(name):
    model = create_model(name, num_classes=3, image_size=32, exits=[1, 3]).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.weight, 0.5, 2.0)
    x = torch.randn(2, 3, 32, 32)

    def learned():
        answers = [answer for _, answer, _ in model.forward_exits(x)]
        model.zero_grad()
        sum(answer.square().sum() for answer in answers).backward()
        return answers, {key: p.grad for key, p in model.named_parameters() if p.grad is not None}

    wanted, gradients = learned()
    join_norms(model)
    got, joined = learned()
    assert got[0].data_ptr() != wanted[0].data_ptr() and gradients.keys() == joined.keys()
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)
    for key, gradient in gradients.items():
        assert (joined[key] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-4, key
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm(x) is x
    part_norms(model)
    assert norm(torch.zeros(1, norm.num_features, 1, 1)).abs().max() > 0


def test_fine_tuning_learns_all_but_the_statistics_of_batch_norms(tiny):
    stage = FineTune(tiny, (torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 2])))
    stage.train()
    assert not any(m.training for m in tiny.modules() if isinstance(m, nn.BatchNorm2d))
    assert all(m.training for m in tiny.modules() if isinstance(m, nn.BatchNorm1d))
    before = tiny._bn0.running_mean.clone()
    stage(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])).backward()
    assert tiny._blocks[-1]._project_conv.weight.grad is not None and tiny._conv_stem.weight.grad is not None
    assert torch.equal(tiny._bn0.running_mean, before)

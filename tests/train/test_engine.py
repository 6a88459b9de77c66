"""The engine: it learns, repeats itself, goes on after an interruption, and stops when it should."""

import csv
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from pi_dynn.clock import FakeClock
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import CheckpointError, InputError, PiDynnError
from pi_dynn.models.card import Card, read_card
from pi_dynn.train.batches import LoadedBatches, Order, TensorBatches
from pi_dynn.train.engine import Callback, RunContext, Stage, fit
from pi_dynn.train.recipe import Recipe
from pi_dynn.train.run_folder import RunFolder

CARD = Card("net", {"num_classes": 2, "exits": [1]}, ["a", "b"], Preprocess(4))


class Points(Stage):
    """Two clouds in the plane, a network with dropout so that random numbers matter."""

    def __init__(self, scores=None):
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2)))
        generator = torch.Generator().manual_seed(1)
        self.y = torch.arange(50) % 2
        self.x = torch.randn(50, 2, generator=generator) + 3.0 * self.y[:, None]
        self.scores, self.epochs_begun = scores, []

    def forward(self, x, y):
        return F.cross_entropy(self.model(x), y)

    def begin_epoch(self, epoch):
        self.epochs_begun.append(epoch)

    def evaluate(self, model):
        model.eval()
        if self.scores is not None:
            return {"accuracy": self.scores[self.epochs_begun[-1]]}
        return {"accuracy": float((model(self.x).argmax(1) == self.y).float().mean())}

    def memory(self):
        return {"seen": len(self.epochs_begun)}

    def recall(self, memory):
        self.epochs_begun = [-1] * memory["seen"]

    def batches(self, seed=0):
        return TensorBatches((self.x, self.y), Order(50, 16, seed))


class KilledAt(Callback):
    """Ends the run in the middle of an epoch, as a power cut would."""

    def __init__(self, step):
        self.left = step

    def on_step(self, steps):
        self.left -= steps
        if self.left < 0:
            raise KeyboardInterrupt


RECIPE = Recipe(epochs=6, batch_size=16, lr=0.02, final_lr=0.001, warmup_steps=3, ema_decay=0.9, seed=4)


def test_learns_and_counts(tmp_path):
    stage = Points()
    fitted = fit(stage, stage.batches(), RECIPE, RunContext(folder=RunFolder(tmp_path, CARD), clock=FakeClock(0, 10)))
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == list("123456") and stage.epochs_begun == list(range(6))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"]) and fitted.history[-1]["accuracy"] > 0.85
    assert all(0 < row["waited"] < 1 and row["images_per_s"] > 0 for row in fitted.history)
    assert fitted.best_score == max(row["accuracy"] for row in fitted.history)
    best, last = (load_file(tmp_path / f"{name}.safetensors") for name in ("best", "last"))
    assert all(torch.equal(best[key], value) for key, value in fitted.best.items())
    assert all(torch.equal(last[key], value) for key, value in fitted.model.state_dict().items())
    assert read_card(tmp_path / "best.safetensors") == CARD


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_interrupted_run_ends_as_an_undisturbed_one(tmp_path, ema_decay, optimizer):
    recipe = replace(RECIPE, ema_decay=ema_decay, optimizer=optimizer)

    def run(folder, callback=None):
        stage = Points()
        context = RunContext(folder=RunFolder(folder, CARD), callback=callback or Callback(), clock=FakeClock(0, 10))
        return fit(stage, stage.batches(), recipe, context)

    whole = run(tmp_path / "whole")
    for step in (1, 8, 8):  # in the first epoch, then twice in a later one
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", KilledAt(step))
    resumed = run(tmp_path / "cut")
    assert resumed.history == whole.history
    for name in ("best", "last"):
        ours, theirs = (load_file(tmp_path / part / f"{name}.safetensors") for part in ("cut", "whole"))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    again = run(tmp_path / "cut", KilledAt(24))  # nothing is left to do
    assert again.history == whole.history


def test_same_seed_same_weights_other_seed_others():
    def weights(seed):
        stage = Points()
        recipe = replace(RECIPE, seed=seed, epochs=2)
        return fit(stage, stage.batches(seed), recipe).model.state_dict()["0.weight"]

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_stops_when_nothing_gets_better_and_keeps_the_best(tmp_path):
    stage = Points(scores=[0.5, 0.9, 0.6, 0.9, 0.7, 0.8])
    recipe = replace(RECIPE, patience=3)
    fitted = fit(stage, stage.batches(), recipe, RunContext(folder=RunFolder(tmp_path, CARD)))
    assert len(fitted.history) == 5 and (fitted.best_epoch, fitted.best_score) == (2, 0.9)
    stage = Points(scores=[0.0] * 6)  # a finished run stays finished
    assert len(fit(stage, stage.batches(), recipe, RunContext(folder=RunFolder(tmp_path, CARD))).history) == 5


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_last_whole_epoch(tmp_path):
    stage = Points()
    fit(stage, stage.batches(), Recipe(epochs=1, batch_size=16), RunContext(folder=RunFolder(tmp_path, CARD)))
    before = (tmp_path / "last.safetensors").read_bytes()
    stage = Points()
    stage.x[7] = float("nan")
    context = RunContext(folder=RunFolder(tmp_path, CARD), name="transfer")
    with pytest.raises(PiDynnError, match="transfer: the loss became nan in epoch 2; lower lr=0.001"):
        fit(stage, stage.batches(), Recipe(epochs=3, batch_size=16), context)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_average_by_hand():
    """Plain SGD of one step a batch: the average is the blend of the weights after each step."""
    stage = Points()
    recipe = Recipe(epochs=1, batch_size=16, optimizer="sgd", lr=0.1, final_lr=0.1, ema_decay=0.5, ema_warmup=False)
    weights = []

    class Watch(Callback):
        def on_step(self, steps):
            weights.append(stage.model[0].weight.detach().clone())

    fitted = fit(stage, stage.batches(), recipe, RunContext(callback=Watch()))
    expected = weights[0]  # the first is copied
    for weight in weights[1:]:
        expected = 0.5 * expected + 0.5 * weight
    torch.testing.assert_close(fitted.model[0].weight.detach(), expected)


def test_state_of_another_kind_is_refused(tmp_path):
    folder = RunFolder(tmp_path, CARD)
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match="state.pt: damaged"):
        folder.load_state()
    torch.save({"format": 99}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="another version"):
        folder.load_state()


def test_a_folder_is_not_overwritten_and_another_run_not_resumed(tmp_path):
    folder = RunFolder(tmp_path, CARD)
    manifest = {"stage": "transfer", "recipe": {"lr": 0.1, "epochs": 2}, "versions": {"torch": "1"}}
    folder.begin(manifest, resume=False)
    with pytest.raises(InputError, match="holds a run already: go on with --resume"):
        folder.begin(manifest, resume=False)
    folder.begin(manifest | {"versions": {"torch": "2"}}, resume=True)
    with pytest.raises(InputError, match=r"started with recipe.lr=0.1, not 0.2: resume it with the same options"):
        folder.begin(manifest | {"recipe": {"lr": 0.2, "epochs": 2}}, resume=True)


@pytest.mark.parametrize(
    "wrong", [{"optimizer": "lion"}, {"epochs": 0}, {"lr": 0.0}, {"final_lr": 1.0}, {"ema_decay": 1.0}]
)
def test_a_recipe_that_makes_no_sense(wrong):
    with pytest.raises(InputError):
        Recipe(**{"epochs": 1} | wrong)


class Noisy(torch.utils.data.Dataset):
    """Each sample is its index and a random number."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.tensor(index), torch.rand(())


def test_workers_change_nothing_and_leave_the_global_generator_alone():
    def epochs(workers):
        batches = LoadedBatches(Noisy(), Order(10, 4, seed=3), workers)
        return [[tuple(part.tolist() for part in batch) for batch in batches.epoch(epoch)] for epoch in (0, 1, 0)]

    before = torch.get_rng_state()
    alone = epochs(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert alone == epochs(2)
    assert alone[0] == alone[2] != alone[1]
    assert [len(epoch) for epoch in alone] == [2, 2, 2]


def test_a_sample_drawn_twice_is_augmented_twice():
    class TheFirst(Order):
        def batches(self, epoch):
            return [[0] * 10]

    batches = LoadedBatches(Noisy(), TheFirst(10, 10, seed=0), 0)
    ((indices, noise),) = batches.epoch(0)
    assert indices.tolist() == [0] * 10 and len(set(noise.tolist())) == 10

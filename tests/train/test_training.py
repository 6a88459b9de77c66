"""The phases of the embedded model: losses, schedule, and a whole run on a few small pictures."""

import csv
import math
from dataclasses import replace

import pytest
import torch
from loop import Phase, PhaseStage, predict_exits, train_phase
from safetensors.torch import load_file

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import PiDynnError
from pi_dynn.models import create_model
from pi_dynn.models.card import Card
from pi_dynn.train.images import AugmentedImages, aerial_augmentation, decode_all, turned_and_flipped
from pi_dynn.train.recipe import Recipe, decay_groups, lr_at
from pi_dynn.train.run_folder import RunFolder
from tests.train.test_losses import FixedAnswers

PHASE = Phase("try", image_size=32, epochs=8, lr=2e-3, final_lr=1e-4, warmup_steps=4, batch_size=8, mix_probability=0.5)


def test_loss_by_hand():
    """Cross-entropy of two equal logits is ln 2; smoothing of a symmetric answer changes nothing."""
    even, sure = torch.zeros(1, 2), torch.tensor([[50.0, 0.0]])
    phase = Phase("x", 32, 1, 1.0, 1.0, exit_weight=0.5, label_smoothing=0.0, mix_probability=0.0)

    def loss(*answers):
        stage = PhaseStage(FixedAnswers(*answers), phase, 2, 2, evaluate=lambda model: {})
        return float(stage(torch.zeros(1, 3, 4, 4), torch.tensor([0])))

    assert loss(even, sure, even) == pytest.approx(math.log(2) + 0.5 * math.log(2) / 2)
    assert loss(even) == pytest.approx(math.log(2))


def test_schedule_warms_up_then_falls_to_its_floor():
    rates = [lr_at(step, 100, Recipe(epochs=1, lr=2.0, final_lr=0.2, warmup_steps=10)) for step in range(101)]
    assert rates[:10] == pytest.approx([(i + 1) / 5 for i in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(1.1)  # half way down
    assert rates[100] == pytest.approx(0.2)


def test_weight_decay_spares_biases_norms_and_positions():
    model = create_model("gfnet_12_192", num_classes=3, image_size=32, exits=[4])
    decayed, free = decay_groups(model, 0.05)
    shapes = {tuple(p.shape) for p in decayed["params"]}
    assert (768, 192) in shapes and model.blocks[0].filter.complex_weight.shape in shapes
    assert all(p.ndim == 1 or p.shape[0] == 1 for p in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_eight_views_are_all_different():
    image = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4)
    views = turned_and_flipped(image)
    assert views.shape == (8, 3, 4, 4)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8
    assert torch.equal(views[0], image[0])


@pytest.fixture
def two_colours():
    """Reddish and bluish noise: 32 pictures that a network can distinguish."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 120, (32, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.arange(32) % 2
    images[labels == 0, 0] += 130
    images[labels == 1, 2] += 130
    return images, labels


def small_model(seed: int = 0):
    torch.manual_seed(seed)
    return create_model("gfnet_12_192", num_classes=2, image_size=32, exits=[2, 5])


def test_training_learns_logs_and_repeats_itself(two_colours, tmp_path):
    images, labels = two_colours
    preprocess = Preprocess(size=32)
    x = preprocess.tensor(images.permute(0, 2, 3, 1).numpy())

    def accuracy(model):
        right = predict_exits(model, x).argmax(-1) == labels
        return {"acc_2": float(right[0].float().mean()), "acc_last": float(right[-1].float().mean())}

    def run(name: str):
        torch.manual_seed(5)
        model = small_model()
        data = AugmentedImages(images, labels, aerial_augmentation(32, 0.5), preprocess)
        average = train_phase(model, data, torch.ones(32), PHASE, 2, 3, accuracy, tmp_path / f"{name}.csv")
        return average, model

    (average, model), (again, _) = run("a"), run("b")
    for key, value in average.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == [str(i + 1) for i in range(8)]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert accuracy(model)["acc_last"] == 1.0


def test_an_interrupted_phase_goes_on_after_its_last_whole_epoch(two_colours, tmp_path):
    images, labels = two_colours
    data = AugmentedImages(images, labels, aerial_augmentation(32, 0.5), Preprocess(size=32))
    phase = replace(PHASE, epochs=3)

    class Interrupted(Exception):
        pass

    def run(name: str, evaluations: int) -> dict:
        left = iter(range(evaluations))

        def figures(model):
            if next(left, None) is None:
                raise Interrupted
            return {}

        folder = RunFolder(tmp_path / name, Card("gfnet_12_192", {}, ["a", "b"], Preprocess(4)))
        log = tmp_path / f"{name}.csv"
        return train_phase(small_model(), data, torch.ones(32), phase, 2, 3, figures, log, folder=folder).state_dict()

    straight = run("straight", 3)
    with pytest.raises(Interrupted):
        run("cut", 1)
    for key, value in run("cut", 2).items():
        assert torch.equal(value, straight[key]), key


def test_a_loss_that_is_no_number_stops_training(two_colours, tmp_path):
    images, labels = two_colours
    model = small_model()
    model.head.weight.data.fill_(float("nan"))
    data = AugmentedImages(images, labels, aerial_augmentation(32, 0.5), Preprocess(size=32))
    with pytest.raises(PiDynnError, match="try: the loss became nan in epoch 1; lower lr"):
        train_phase(model, data, torch.ones(32), PHASE, 2, 3, lambda _: {}, tmp_path / "log.csv")


def test_decoding_a_folder(photographs):
    from pi_dynn.data.folders import ImageFolder, walk_images

    paths = list(walk_images(photographs))
    images = decode_all(ImageFolder(photographs, ["a"], paths, [0] * len(paths)), Preprocess(size=16))
    assert images.shape == (6, 3, 16, 16) and images.dtype == torch.uint8


def test_checkpoints_are_read_back_by_block(tmp_path):
    """The file of the script contains its exits, so any set of them can be exported."""
    import json

    from safetensors.torch import save_file

    from pi_dynn import load_checkpoint

    model = small_model()
    path = tmp_path / "net.safetensors"
    save_file(model.state_dict(), path, {"exit_blocks": json.dumps([2, 5])})
    other = create_model("gfnet_12_192", num_classes=2, image_size=32, exits=[5])
    assert load_checkpoint(other, path).fits
    torch.testing.assert_close(other.intermediate_heads[0].weight.data, load_file(path)["intermediate_heads.1.weight"])

"""Losses of transfer and distillation against cases worked out by hand."""

import math
from importlib import resources

import pytest
import torch
from torch import nn

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import InputError, ModelError
from pi_dynn.models import create_model
from pi_dynn.runtime.archive import SHIPPED
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.train.distill import Distillation, hard_distillation_loss, soft_distillation_loss
from pi_dynn.train.images import AUGMENTATIONS, Mixing, augmentation
from pi_dynn.train.networks import open_teacher
from pi_dynn.train.teacher_network import TeacherNetwork
from pi_dynn.train.text import epoch_text
from pi_dynn.train.transfer import Transfer, exit_accuracies

LN2, LN3 = math.log(2), math.log(3)


class FixedAnswers(nn.Module):
    """A network whose exits answer what they are given, whatever the image."""

    def __init__(self, *answers: torch.Tensor) -> None:
        super().__init__()
        self.answers, self.exit_blocks = answers, list(range(len(answers) - 1))

    def forward_exits(self, x):
        return [(block, answer, torch.ones(len(answer))) for block, answer in enumerate(self.answers)]


def joint_loss(answers, exit_weight, label_smoothing):
    """The loss of fixed answers to one image of class 0."""
    nothing = torch.zeros(0)
    stage = Transfer(
        FixedAnswers(*answers), (nothing, nothing), label_smoothing=label_smoothing, exit_weight=exit_weight
    )
    return float(stage(nothing, torch.tensor([0])))


def test_joint_loss_is_the_final_one_plus_the_weighted_others():
    even, sure = torch.zeros(1, 2), torch.tensor([[60.0, 0.0]])
    wrong = torch.tensor([[0.0, LN3]])  # probabilities 1/4, 3/4
    assert joint_loss([even, wrong, even], 0.5, 0.0) == pytest.approx(LN2 + 0.5 * LN2 + 0.5 * math.log(4))
    assert joint_loss([even, wrong, even], 2.0, 0.0) == pytest.approx(LN2 + 2.0 * LN2 + 2.0 * math.log(4))
    assert joint_loss([sure], 1.0, 0.0) == pytest.approx(0.0, abs=1e-6)


def test_joint_loss_smooths_towards_all_classes():
    wrong = torch.tensor([[0.0, LN3]])
    expected = 0.95 * math.log(4) + 0.05 * math.log(4 / 3)
    assert joint_loss([wrong], 1.0, 0.1) == pytest.approx(expected)


def test_hard_distillation_follows_the_teachers_class():
    student = torch.tensor([[0.0, LN3], [0.0, LN3]])
    teacher = torch.tensor([[5.0, 1.0], [-9.0, -8.0]])  # names class 0, then class 1
    assert float(hard_distillation_loss(student, teacher)) == pytest.approx((math.log(4) + math.log(4 / 3)) / 2)


def test_soft_distillation_is_the_divergence_per_image():
    student, teacher = torch.zeros(2, 2), torch.tensor([[0.0, LN3], [0.0, 0.0]])
    divergence = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)  # of the first image, 0 of the second
    assert float(soft_distillation_loss(student, teacher, 1.0)) == pytest.approx(divergence / 2)


def test_soft_distillation_at_a_temperature():
    """Logits of 2 ln 3 at temperature 2 are those of ln 3 at 1; the square of the temperature is put back."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, LN3]])
    at_one = float(soft_distillation_loss(student, teacher, 1.0))
    assert float(soft_distillation_loss(student, 2 * teacher, 2.0)) == pytest.approx(4 * at_one)


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return create_model("gfnet_12_192", num_classes=3, image_size=32, distilled=True)


class Constant(nn.Module):
    """A teacher that always gives the same logits."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([logits]))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


@pytest.mark.parametrize(("kind", "alpha"), [("hard", 0.5), ("soft", 0.3), ("soft", 1.0)])
def test_distillation_reads_the_class_token_for_labels_and_the_other_for_the_teacher(student, kind, alpha):
    x, y = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0])
    teacher = Constant(0.0, 4.0, 1.0)
    stage = Distillation(student, teacher, (x, y), kind=kind, alpha=alpha, temperature=2.0, label_smoothing=0.0)
    stage.eval()
    cls, dist = (z.log_softmax(1) for z in student.forward_heads(x))
    label_loss = -cls[range(4), y].mean()
    if kind == "hard":
        teacher_loss = -dist[:, 1].mean()
    else:
        p = torch.tensor([0.0, 2.0, 0.5]).softmax(0)
        q = (student.forward_heads(x)[1] / 2).log_softmax(1)
        teacher_loss = 4 * (p * (p.log() - q)).sum() / 4
    torch.testing.assert_close(stage(x, y), (1 - alpha) * label_loss + alpha * teacher_loss)


def test_the_teacher_learns_nothing_and_stays_in_evaluation(student):
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3), nn.Dropout(0.5))
    x, y = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    stage = Distillation(student, teacher, (x, y)).train()
    assert student.training and not teacher.training and not teacher[2].training
    stage(x, y).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.dist_token.grad is not None


def test_distillation_needs_a_token_and_a_known_loss(student):
    plain = create_model("gfnet_12_192", num_classes=3, image_size=32)
    held_out = torch.zeros(1, 3, 32, 32), torch.zeros(1, dtype=torch.long)
    with pytest.raises(ModelError, match="no distillation token"):
        Distillation(plain, Constant(0.0, 1.0, 2.0), held_out)
    with pytest.raises(ModelError, match="kind 'warm' is not known"):
        Distillation(student, Constant(0.0, 1.0, 2.0), held_out, kind="warm")


def test_a_teacher_gets_its_own_size_and_colours_and_answers_in_the_students_order():
    own = Preprocess(size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    students = Preprocess(size=4)
    inputs = []

    def answer(x):
        inputs.append(x)
        return torch.tensor([[1.0, 2.0, 3.0]]).expand(len(x), -1)

    teacher = TeacherNetwork(answer, own, students, (["a", "b", "c"], ["c", "a"]))
    colour = torch.tensor([0.1, 0.6, 0.9]).view(1, 3, 1, 1)
    x = (colour - torch.tensor(students.mean).view(1, 3, 1, 1)) / torch.tensor(students.std).view(1, 3, 1, 1)
    logits = teacher(x.expand(1, 3, 4, 4))
    assert logits.tolist() == [[3.0, 1.0]]
    torch.testing.assert_close(inputs[0], ((colour - 0.5) / 0.5).expand(1, 3, 8, 8), rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match="does not know the class 'z'"):
        TeacherNetwork(answer, own, students, (["a"], ["z"]))


def test_mixed_labels_share_the_weight_as_the_pictures_do():
    mix = Mixing(3, share=1.0)
    x = torch.eye(4).view(4, 1, 2, 2).expand(4, 3, 2, 2).clone()
    y = torch.tensor([0, 1, 2, 0])
    torch.manual_seed(0)
    for _ in range(10):
        mixed, target = mix(x, y)
        torch.testing.assert_close(target.sum(1), torch.ones(4))
        assert mixed.shape == x.shape and (target >= 0).all()
    assert Mixing(3, share=0.0)(x, y) == (x, y)


def test_mixing_takes_its_share_of_batches():
    torch.manual_seed(0)
    x, y = torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])
    mix = Mixing(2, share=0.25)
    mixed = sum(mix(x, y)[1].ndim == 2 for _ in range(400))
    assert 70 < mixed < 130


def test_without_an_exit_weight_exits_and_gates_stay_as_they_are():
    model = create_model("gfnet_12_192", num_classes=3, image_size=32, exits=[2])
    x, y = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    Transfer(model, (x, y))(x, y).backward()
    assert all(p.grad is None for part in (model.gates, model.intermediate_heads) for p in part.parameters())
    assert model.head.weight.grad is not None


def test_joint_training_reaches_every_head_and_judges_every_exit():
    model = create_model("gfnet_12_192", num_classes=3, image_size=32, exits=[2, 5])
    x, y = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2])
    stage = Transfer(model, (x, y), exit_weight=0.5, label_smoothing=0.0)
    stage(x, y).backward()
    assert all(head.weight.grad is not None for head in (*model.intermediate_heads, model.head))
    figures = stage.evaluate(model)
    accuracies = exit_accuracies(model, x, y)
    assert list(figures) == ["joint_accuracy", "acc_2", "acc_5", "acc_11"]
    assert figures["joint_accuracy"] == pytest.approx((0.5 * accuracies[0] + 0.5 * accuracies[1] + accuracies[2]) / 2)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_makes_a_picture_of_the_asked_size(name):
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    for any_way_up in (False, True):
        out = augmentation(name, 32, any_way_up=any_way_up)(image)
        assert out.shape == (3, 32, 32) and out.dtype == torch.uint8


def test_unknown_augmentation():
    with pytest.raises(InputError, match="'hallucinate' is not known: choose from randaugment, trivial"):
        augmentation("hallucinate", 32)


def test_a_line_of_an_epoch_is_in_words():
    row = {"epoch": 12, "lr": 3e-4, "loss": 0.4123, "images_per_s": 320.4, "waited": 0.021}
    row |= {"utility": -0.9046, "gated_accuracy": 0.934, "mean_cost": 0.52, "acc_7": 0.9}
    assert epoch_text("bilevel", row) == (
        "gates and heads, epoch 12: loss 0.412, accuracy with exits 93.4 %, mean cost 52.0 % "
        "(320 images/s, 2 % waiting)"
    )


def test_a_bundle_in_static_int8_teaches():
    with resources.as_file(resources.files("pi_dynn.assets") / SHIPPED["lite0"]) as file:
        bundle = load_bundle(file)
        teacher = open_teacher(str(file), bundle.manifest.labels, bundle.manifest.preprocess, torch.device("cpu"))
    assert bundle.manifest.precision == "int8-static"
    assert teacher(torch.zeros(2, 3, 128, 128)).shape == (2, len(bundle.manifest.labels))

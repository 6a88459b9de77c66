"""Networks with entropy branches: the recorded case, the paper's three, real termination."""

import pytest
import torch
from torch.testing import assert_close

from pi_dynn import Preprocess, Session, build_bundle
from pi_dynn.errors import ModelError
from pi_dynn.exits.scores import score_at
from pi_dynn.models import create_model

SIZES = {"branchynet": 32, "b_lenet": 28, "b_alexnet": 32, "b_resnet_110": 32}
# Weights and biases add up by hand: convolutions, linear layers, norms, with three input channels.
PARAMETERS = {"branchynet": 702_188, "b_lenet": 74_944, "b_alexnet": 605_886, "b_resnet_110": 27_864_046}


@pytest.fixture(scope="module")
def published(reference):
    """The network of the recorded case, filled like it, the case, and its answers."""
    case = reference.load_case("dni_branchynet_32_10")
    model = create_model("branchynet", num_classes=10, image_size=32, exits="all").eval()
    reference.fill(model)
    with torch.inference_mode():
        return model, case, model.forward_exits(reference.case_input(case))


def test_keys_shapes_and_fill(published, reference):
    model, case, _ = published
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == {
        key: shape for key, shape, *_ in case["state_dict"]
    }
    assert reference.digest(model, [key for key, *_ in case["state_dict"]]) == case["sha256"]


def test_recorded_logits_and_entropies(published, reference):
    model, case, answers = published
    for (block, logits, gate), exit in zip(answers, case["exits"], strict=True):
        assert block == exit["exit"]
        assert_close(logits, torch.tensor(exit["logits"]), rtol=0, atol=reference.ATOL)
        if block < 5:
            assert_close(gate, score_at(torch.tensor(exit["entropy"]), 10), rtol=0, atol=1e-5)
    with torch.inference_mode():
        assert_close(model(reference.case_input(case)), torch.tensor(case["logits"]), rtol=0, atol=reference.ATOL)


def test_features_between_the_stages(published, reference):
    model, case, _ = published
    x = reference.case_input(case)
    with torch.inference_mode():
        for block, shape in zip(model.chain().blocks, case["features_after_stage"], strict=True):
            for module in block:
                x = module(x)
            assert list(x.shape) == shape


@torch.inference_mode()
def test_a_bundle_lets_sure_images_leave_and_only_those(published, reference):
    """Every exit's entropy lies between those of both images at some cut-off: one leaves, one goes on."""
    model, case, answers = published
    bundle = build_bundle(
        model,
        exits=[0, 3],
        thresholds=[score_at(0.5, 10)] * 2,
        precision="fp32",
        labels=[str(i) for i in range(10)],
        preprocess=Preprocess(size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    )
    session = Session(bundle, threads=1)
    x = reference.case_input(case)
    entropies = [exit["entropy"] for exit in case["exits"]]
    for logits, exit in zip(session.forward_all(x), (0, 3, 5), strict=True):
        assert_close(logits, torch.tensor(case["exits"][exit]["logits"]), rtol=0, atol=2e-5)
    for k, exit in enumerate((0, 3)):
        limits = [2.0, 2.0]
        limits[k] = score_at(sum(entropies[exit]) / 2, 10)
        surer = min((0, 1), key=lambda sample: entropies[exit][sample])
        left = [session.classify(image, limits).exit_index for image in x]
        assert left[surer] == k
        assert left[1 - surer] == 2


@pytest.mark.parametrize("name", SIZES)
@torch.inference_mode()
def test_shapes_and_parameters(name):
    torch.manual_seed(0)
    size = SIZES[name]
    model = create_model(name, num_classes=10, image_size=size, exits="all").eval()
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    x = torch.randn(2, 3, size, size)
    answers = model.forward_exits(x)
    assert [block for block, _, _ in answers] == list(range(model.depth))
    assert all(logits.shape == (2, 10) for _, logits, _ in answers)
    assert_close(answers[-1][1], model(x))
    assert sum(p.numel() for p in create_model(name, num_classes=10, image_size=size).parameters()) < PARAMETERS[name]


@pytest.mark.parametrize("name", ["branchynet", "b_lenet", "b_alexnet"])
@torch.inference_mode()
def test_scripted_equals_eager(name):
    model = create_model(name, num_classes=10, image_size=SIZES[name], exits=[0]).eval()
    x = torch.randn(2, 3, SIZES[name], SIZES[name])
    assert_close(torch.jit.script(model)(x), model(x), rtol=1e-5, atol=1e-6)


def test_fewer_exits_keep_the_names_of_their_branches():
    keys = create_model("branchynet", num_classes=10, image_size=32, exits=[1, 4]).state_dict()
    assert {key.partition(".")[0] for key in keys if key.startswith("branch")} == {"branch2", "branch5"}


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("branchynet", {"image_size": 30}, "image_size=30"),
        ("branchynet", {"exits": [5]}, "after block 5"),
        ("branchynet", {"distilled": True}, "no distilled form"),
        ("branchynet", {"inverted": True}, "takes no inverted: leave it out"),
        ("b_lenet", {"inverted": True}, "takes no inverted: leave it out"),
        ("b_alexnet", {"image_size": 64}, "b_alexnet is made for 32 px"),
        ("b_alexnet", {"exit_heads": "cls+dist"}, "pools its features"),
    ],
)
def test_impossible_arguments_are_refused(name, change, text):
    with pytest.raises(ModelError) as caught:
        create_model(name, **({"num_classes": 10, "image_size": SIZES[name]} | change))
    assert text in str(caught.value)

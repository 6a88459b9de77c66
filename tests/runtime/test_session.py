"""Sessions: every kind of image, thresholds, deadlines, batches."""

import numpy as np
import pytest
import torch
from PIL import Image

from pi_dynn import Preprocess, Session, build_bundle
from pi_dynn.calibrate.reject import Rejection
from pi_dynn.clock import FakeClock
from pi_dynn.errors import BundleError, InputError
from pi_dynn.records import NEVER


@pytest.fixture(scope="module")
def session(tiny_bundle):
    return Session(tiny_bundle, threads=1, engine="fp32")


@pytest.fixture(scope="module")
def images():
    return list(torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(3)))


def test_every_kind_of_image_gives_the_same_answer(session, photographs):
    path = photographs / "photograph2.jpg"
    picture = Image.open(path)
    answers = [
        session.classify(image).probability
        for image in (path, str(path), picture, np.asarray(picture), session.preprocess(picture))
    ]
    assert answers == pytest.approx([answers[0]] * 5, abs=1e-6)


def test_prediction_is_consistent(session, images):
    answer = session.classify(images[0], top=3)
    assert answer.label == session.manifest.labels[answer.class_index] == answer.top[0][0]
    assert answer.block_index == session.manifest.blocks[answer.exit_index]
    assert len(answer.top) == 3 and answer.top[0][1] > answer.top[-1][1]
    assert answer.probability == answer.top[0][1]
    assert answer.latency_s > 0
    assert type(answer).from_dict(answer.to_dict()) == answer


@pytest.mark.parametrize("k", range(4))
def test_thresholds_force_an_exit(session, images, k):
    answer = session.classify(images[0], session.forced_thresholds(k))
    assert answer.exit_index == k
    want = torch.softmax(session.forward_all(images[0][None])[k][0], 0).max()
    assert answer.probability == pytest.approx(float(want), abs=1e-5)


def test_one_threshold_stands_for_all(session):
    assert session.resolve_thresholds(0.3) == [0.3] * 3
    assert session.resolve_thresholds(None) == session.manifest.thresholds


@pytest.mark.parametrize(
    ("thresholds", "message"), [([0.5], "got 1 threshold for"), (-0.1, "-0.1"), (float("nan"), "nan")]
)
def test_thresholds_that_cannot_be(session, thresholds, message):
    with pytest.raises(InputError, match=message):
        session.resolve_thresholds(thresholds)


@pytest.mark.parametrize(("deadline_s", "exit_index"), [(0.0, 0), (0.0015, 1), (0.0025, 2), (1.0, 3)])
def test_deadline_answers_at_the_next_exit(tiny_bundle, images, deadline_s, exit_index):
    clock = FakeClock()
    session = Session(tiny_bundle, threads=1, engine="fp32", clock=clock)
    clock.tick_ns = 1_000_000  # every look at the clock costs a millisecond
    answer = session.classify(images[0], 2.0, deadline_s=deadline_s)
    assert answer.exit_index == exit_index
    plain = session.classify(images[0], session.forced_thresholds(exit_index))
    assert answer.probability == pytest.approx(plain.probability, abs=1e-6)


def test_with_a_deadline_a_score_at_its_threshold_is_enough(session, images):
    score = session.classify(images[0], session.forced_thresholds(1), deadline_s=1e9).score
    answer = session.classify(images[0], [NEVER, score, *[NEVER] * (session.exits - 2)], deadline_s=1e9)
    assert (answer.exit_index, answer.score) == (1, score)


@pytest.mark.parametrize("engine", ["fp32", "qnnpack"])
@pytest.mark.parametrize("batch_size", [2, 4, 9, 20])
def test_batches_answer_as_single_images_do(tiny_bundle, images, engine, batch_size):
    session = Session(tiny_bundle, threads=1, engine=engine)
    scores = session.forward_scored(torch.stack(images))[1][:-1]
    limits = [float(score.sort().values[4:6].mean()) for score in scores]  # no score is this one by rounding
    alone = [session.classify(image, limits) for image in images]
    batched = list(session.classify_many(images, batch_size, limits))
    assert len({answer.exit_index for answer in alone}) > 1
    for one, other in zip(alone, batched, strict=True):
        assert (one.class_index, one.exit_index) == (other.class_index, other.exit_index)
        assert one.probability == pytest.approx(other.probability, abs=1e-5)


def test_a_large_batch_runs_in_parts(session, images, monkeypatch):
    monkeypatch.setattr("pi_dynn.runtime.session.RUN_TOGETHER", 4)
    whole, sizes = session._network.forward_batch, []
    monkeypatch.setattr(session._network, "forward_batch", lambda x, t: (sizes.append(len(x)), whole(x, t))[1])
    stream = [*images[:5], torch.full((3, 32, 32), float("nan")), *images[5:]]
    answers = [answer for _, answer in session.answer_stream(enumerate(stream), batch_size=9)]
    assert sizes == [4, 4, 1] and isinstance(answers.pop(5), InputError)
    assert [one.class_index for one in answers] == [session.classify(image).class_index for image in images]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_bad_images_do_not_stop_the_stream(session, images, batch_size):
    broken = torch.full((3, 32, 32), float("nan"))
    stream = [images[0], broken, images[1], images[2], broken]
    answers = [answer for _, answer in session.answer_stream(enumerate(stream), batch_size)]
    assert [isinstance(answer, InputError) for answer in answers] == [False, True, False, False, True]
    with pytest.raises(InputError, match="NaN"):
        list(session.classify_many(stream, batch_size))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 16, 16), "expected a float tensor"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), "expected a float tensor"),
        (torch.full((3, 32, 32), float("inf")), "infinite"),
        (np.zeros((5, 5), np.uint8), "uint8 array"),
        (np.zeros((0, 5, 3), np.uint8), "uint8 array"),
        (np.zeros((5, 5, 3)), "uint8 array"),
        (7, "cannot classify a int"),
        ("nowhere.jpg", "no such file"),
    ],
)
def test_images_that_cannot_be(session, image, message):
    with pytest.raises(InputError, match=message):
        session.classify(image)


def test_settings_that_cannot_be(session, tiny_bundle):
    with pytest.raises(InputError, match="threads=0"):
        Session(tiny_bundle, threads=0)
    with pytest.raises(InputError, match="batch_size=0"):
        list(session.classify_many([], 0))
    with pytest.raises(InputError, match="deadline"):
        session.answer_stream([], 2, deadline_s=1.0)


@pytest.mark.parametrize("blocks", [[4], [1, 8], []])
def test_exits_that_are_not_enabled_never_answer(tiny_bundle, images, blocks):
    session = Session(tiny_bundle, threads=1, engine="fp32", exits=blocks)
    first = blocks[0] if blocks else 11
    assert session.classify(images[0], 0.0).block_index == first
    assert session.classify(images[0], deadline_s=0.0).block_index == first
    assert {answer.block_index for answer in session.classify_many(images, 4, 0.0)} == {first}
    with pytest.raises(InputError, match=r"exits=\[2\]: the bundle has exits after blocks \[1, 4, 8\]"):
        Session(tiny_bundle, threads=1, engine="fp32", exits=[2])


def test_network_without_exits(tiny_model, images):
    bundle = build_bundle(tiny_model, exits=[], thresholds=[], labels=list("abcde"), preprocess=Preprocess(size=32))
    session = Session(bundle, threads=1, engine="qnnpack")
    assert session.classify(images[0]).block_index == 11
    assert session.classify(images[0], deadline_s=0.0).block_index == 11
    assert [answer.exit_index for answer in session.classify_many(images[:3], 2)] == [0, 0, 0]


@pytest.mark.parametrize("limit", [-1.0, 1.1])
def test_an_image_unlike_all_classes_is_rejected_unless_all_are_accepted(tiny_bundle, images, limit):
    means = np.broadcast_to(np.eye(5), (4, 5, 5)).tolist()
    bundle = tiny_bundle.with_manifest(rejection=Rejection(0.05, limit, 20, means))
    assert load_network_of(bundle) == load_network_of(tiny_bundle) and bundle.sha256 != tiny_bundle.sha256
    session = Session(bundle, engine="fp32")
    answers = [session.classify(image) for image in images]
    assert {answer.accepted for answer in answers} == {limit < 0}
    logits = session.forward_all(images[0][None])[answers[0].exit_index][0]
    assert answers[0].similarity == pytest.approx(float(logits.max() / logits.norm()), abs=1e-6)
    batched = session.classify_many(images, batch_size=4)
    assert [one.similarity for one in batched] == pytest.approx([one.similarity for one in answers], abs=1e-5)
    accepting = Session(bundle, engine="fp32", accept_all=True).classify(images[0])
    assert (accepting.accepted, accepting.similarity) == (True, None)
    assert accepting.label == answers[0].label


def load_network_of(bundle) -> str:
    return bundle.manifest.weights_sha256


def test_class_means_that_do_not_fit_the_bundle(tiny_bundle):
    with pytest.raises(BundleError, match="class means do not fit 3 exits and 5 classes"):
        tiny_bundle.with_manifest(rejection=Rejection(0.05, 0.5, 20, [[[1.0, 0.0], [0.0, 1.0]]]))


def test_there_is_always_one_answer(session, images):
    assert len(session.classify(images[0], top=0).top) == 1

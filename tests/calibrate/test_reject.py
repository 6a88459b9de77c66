"""None of these: the promise for any distribution, and what the similarity is."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_dynn.calibrate.reject import class_means, exit_similarities, fit_rejection, similarity
from pi_dynn.errors import CalibrationError

MEANS = np.eye(3)[None]  # one exit, three classes


@given(st.integers(1, 200), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_the_rank_of_the_limit_keeps_the_promise(images, alpha, seed):
    values = np.random.default_rng(seed).standard_cauchy(images)
    rank = int(alpha * (images + 1))
    if rank < 1:
        with pytest.raises(CalibrationError, match="or more are needed") as caught:
            fit_rejection(values, MEANS, alpha)
        need = int(re.search(r"(\d+) or more", str(caught.value))[1])
        assert need > len(values) and fit_rejection([0.5] * need, MEANS, alpha).images == need
        return
    rejection = fit_rejection(values, MEANS, alpha)
    # A new image is as likely to come in any of the N + 1 places among them: rank places lie below the limit.
    assert (values < rejection.limit).sum() == rank - 1
    assert rank / (images + 1) <= alpha
    assert (rejection.alpha, rejection.images) == (alpha, images)


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "random"])
def test_new_images_are_rejected_no_more_often_than_promised(draw):
    random = np.random.default_rng(1)
    rejected = []
    for _ in range(2000):
        old, new = getattr(random, draw)(99), getattr(random, draw)(20)
        rejected.append((new < fit_rejection(old, MEANS, 0.1).limit).mean())
    assert np.mean(rejected) == pytest.approx(0.1, abs=0.005)


def test_similarity_is_the_cosine_to_the_nearest_class_at_any_length():
    logits = np.array([[2.0, 0.0, 0.0], [0.0, 500.0, 0.0], [1.0, 1.0, 0.0], [-1.0, -1.0, -1.0]])
    assert similarity(logits, MEANS[0]) == pytest.approx([1.0, 1.0, 0.5**0.5, -(3**-0.5)])
    assert similarity(np.zeros((1, 3)), MEANS[0]) == pytest.approx([0.0])


def test_class_means_are_of_unit_length_and_weigh_every_image_alike():
    logits = np.array(
        [[[9.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 7.0]], [[1.0, 1.0], [0.0, 2.0], [1.0, -1.0], [0.0, 3.0]]]
    )
    means = class_means(logits, [0, 1, 0, 1], ["ant", "bee"])
    np.testing.assert_allclose(means, [[[1, 0], [0, 1]], [[1, 0], [0, 1]]], atol=1e-12)
    with pytest.raises(CalibrationError, match="class 'ant' has no image"):
        class_means(logits, [1, 1, 1, 1], ["ant", "bee"])


def test_each_image_is_judged_at_the_exit_where_it_leaves():
    logits = np.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, -1.0]]])
    means = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    assert exit_similarities(logits, [0, 1], means) == pytest.approx([1.0, 0.0])
    assert exit_similarities(logits, [1, 0], means) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 5.0])
def test_a_share_that_is_none(alpha):
    with pytest.raises(CalibrationError, match="between 0 and 1"):
        fit_rejection([0.5] * 50, MEANS, alpha)

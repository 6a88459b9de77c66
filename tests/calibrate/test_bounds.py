"""Tests and bounds against closed forms and known values."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_dynn.calibrate.bounds import (
    binomial_tail,
    gap_p_value,
    harm_p_value,
    images_needed,
    normal_tail,
    p_value,
    upper_bound,
)


@pytest.mark.parametrize(("n", "share"), [(7, 0.3), (20, 0.05), (60, 0.9)])
def test_the_binomial_tail_is_the_sum_of_its_terms(n, share):
    terms = [math.comb(n, j) * share**j * (1 - share) ** (n - j) for j in range(n + 1)]
    assert binomial_tail(np.arange(n + 1), n, share) == pytest.approx(np.cumsum(terms))


def test_the_tail_of_very_many_images():
    # n p = 500, standard deviation 22.3: the normal limit with continuity correction is good to 1 %
    assert float(binomial_tail(480, 100_000, 0.005)) == pytest.approx(float(normal_tail(19.5 / 22.3)), rel=0.02)
    assert float(binomial_tail(0, 100_000, 0.5)) == 0.0


def test_bounds_that_are_tabled():
    # Clopper-Pearson, one-sided 95 %: 0 of 10 gives 0.2589, 2 of 20 gives 0.2826 (Hahn and Meeker, table A.23)
    assert upper_bound("harm", 0, 0, 10, 0.05) == pytest.approx(0.2589, abs=1e-4)
    assert upper_bound("harm", 2, 0, 20, 0.05) == pytest.approx(0.2826, abs=1e-4)
    assert upper_bound("harm", 10, 0, 10, 0.05) == pytest.approx(1.0)


def test_nobody_harmed_needs_the_rule_of_three():
    # (1 - epsilon) ** n <= delta
    assert images_needed("harm", 0.0, 0.0, 0.01, 0.05) == math.ceil(math.log(0.05) / math.log(0.99)) == 299
    assert images_needed("harm", 0.0, 0.0, 0.005, 0.1) == 460


def test_images_needed_are_enough_and_no_fewer_are():
    for risk, harm in (("harm", 0.006), ("gap", 0.006)):
        n = images_needed(risk, harm, 0.001, 0.01, 0.1)
        harms, helps = math.ceil(harm * n), math.floor(0.001 * n)
        assert p_value(risk, harms, helps, n, 0.01) <= 0.1
    assert images_needed("harm", 0.02, 0.0, 0.01, 0.1) is None


@given(st.integers(1, 300), st.floats(0.001, 0.5), st.integers(0, 10_000))
@settings(max_examples=40)
def test_more_harms_are_never_better_and_helps_never_worse(n, epsilon, seed):
    harms = np.arange(n + 1)
    assert (np.diff(harm_p_value(harms, n, epsilon)) >= 0).all()
    assert (np.diff(gap_p_value(harms, np.zeros(n + 1), n, epsilon)) >= -1e-12).all()
    few = int(np.random.default_rng(seed).integers(0, n + 1))
    helped = gap_p_value(np.full(n - few + 1, few), np.arange(n - few + 1), n, epsilon)
    assert (np.diff(helped) <= 1e-12).all()


@pytest.mark.parametrize("helped", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("delta", [0.05, 0.1, 0.3])
def test_p_values_of_true_hypotheses_are_rarely_small(helped, delta):
    # The loss is epsilon exactly; the corrected tests may reject at most a delta of such samples.
    rng, n, epsilon, trials = np.random.default_rng(0), 400, 0.03, 4000
    counts = rng.multinomial(n, [epsilon + helped, helped, 1 - epsilon - 2 * helped], size=trials)
    rejected = (gap_p_value(counts[:, 0], counts[:, 1], n, epsilon) <= delta).mean()
    assert rejected <= delta + 3 * math.sqrt(delta * (1 - delta) / trials)
    harms = rng.binomial(n, epsilon, trials)
    rejected = (harm_p_value(harms, n, epsilon) <= delta).mean()
    assert rejected <= delta + 3 * math.sqrt(delta * (1 - delta) / trials)


def test_the_exact_test_refuses_what_the_normal_limit_would_promise():
    # Few images, few harms: here the limit is not reached yet.
    assert harm_p_value(0, 100, 0.02, corrected=False) < 0.1 < harm_p_value(0, 100, 0.02)


def test_helps_make_good_for_harms_in_the_gap_only():
    assert gap_p_value(40, 40, 5000, 0.01) < 1e-3
    assert gap_p_value(40, 40, 5000, 0.01, corrected=False) < 1e-3
    assert harm_p_value(40, 5000, 0.01) > 0.05

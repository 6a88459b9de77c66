"""Known temperatures are recovered, and scaled probabilities are calibrated."""

import numpy as np
import pytest

from pi_dynn.calibrate.scores import softmax
from pi_dynn.calibrate.temperature import (
    calibration_error,
    exit_reliability,
    fit_temperature,
    fit_temperatures,
    reliability_bins,
)
from pi_dynn.errors import CalibrationError
from tests.calibrate.synthetic import synthetic_logits


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found(temperature):
    logits, labels = synthetic_logits(20_000, 5, temperature=temperature)
    assert fit_temperature(logits[-1], labels) == pytest.approx(temperature, rel=0.05)


def test_no_other_temperature_is_likelier():
    logits, labels = synthetic_logits(500, 4, seed=3, temperature=2.0)
    wanted = np.full((500, logits.shape[-1]), 1 / 502 / (logits.shape[-1] - 1))
    wanted[np.arange(500), labels] = 501 / 502

    def loss(temperature):
        return -(wanted * np.log(softmax(logits[-1] / temperature))).sum(-1).mean()

    best = fit_temperature(logits[-1], labels)
    assert all(loss(best) <= loss(best * factor) for factor in (0.8, 0.99, 1.01, 1.25))


def test_errors_fall_on_images_that_were_not_fitted():
    logits, labels = synthetic_logits(8000, 5, temperature=3.0)
    temperatures = fit_temperatures(logits[:, :4000], labels[:4000])
    rows = exit_reliability(logits[:, 4000:], labels[4000:], temperatures, [1, 4, 11])
    assert [row.block_index for row in rows] == [1, 4, 11]
    assert all(row.error_after < 0.03 < row.error_before for row in rows)
    assert all(sum(one.count for one in row.bins_after) == 4000 for row in rows)


def test_bins_have_equal_mass_and_the_error_is_their_mean_gap():
    confidence, right = np.array([0.9, 0.1, 0.8, 0.4]), np.array([1, 0, 0, 1])
    bins = reliability_bins(confidence, right, 2)
    assert [(one.confidence, one.accuracy, one.count) for one in bins] == [
        (pytest.approx(0.25), 0.5, 2),
        (pytest.approx(0.85), 0.5, 2),
    ]
    assert calibration_error(bins) == pytest.approx((0.25 + 0.35) / 2)
    assert len(reliability_bins(confidence, right, 15)) == 4


def test_always_right_and_always_wrong_stay_in_range():
    logits = 0.3 * np.eye(4)[np.arange(40) % 4]
    assert fit_temperature(logits, np.arange(40) % 4, photographs=10**9) == pytest.approx(0.05)
    assert fit_temperature(logits, (np.arange(40) + 1) % 4) == pytest.approx(20.0)


@pytest.mark.parametrize(("photographs", "probability"), [(None, 41 / 42), (5, 6 / 7)])
def test_a_few_images_that_are_all_right_do_not_make_answers_certain(photographs, probability):
    labels = np.arange(40) % 4
    logits = 0.3 * np.eye(4)[labels]
    scaled = softmax(logits / fit_temperature(logits, labels, photographs))
    assert scaled.max(-1) == pytest.approx(probability, abs=1e-3)


def test_an_empty_exit_and_nan_are_refused():
    for call in (lambda: fit_temperature(np.zeros((0, 3)), []), lambda: reliability_bins(np.zeros(0), np.zeros(0))):
        with pytest.raises(CalibrationError, match="an exit without images"):
            call()
    with pytest.raises(CalibrationError, match="NaN"):
        fit_temperature(np.full((2, 3), np.nan), [0, 1])


def test_probabilities_that_are_calibrated_already_are_left_alone():
    """Of networks whose probabilities are right, most fits only follow the noise of their few images."""
    kept = []
    for seed in range(60):
        logits, labels = synthetic_logits(2000, 5, seed=seed, temperature=1.0)
        temperatures = fit_temperatures(logits, labels)
        kept += [temperature == 1.0 for temperature in temperatures[-1:]]
        assert all(0.7 < temperature < 1.4 for temperature in temperatures[-1:])
    assert sum(kept) >= 20


def test_views_of_one_photograph_are_held_out_together():
    logits, labels = synthetic_logits(400, 5, temperature=3.0)
    groups = np.repeat(np.arange(100), 4)
    assert fit_temperatures(logits, labels, groups)[-1] == pytest.approx(3.0, rel=0.3)
    assert fit_temperatures(logits[:, :3], labels[:3])[-1] == fit_temperature(logits[-1, :3], labels[:3])

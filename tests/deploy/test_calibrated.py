"""A bundle with a calibration built in leaves where the record says, by any score, with calibrated probabilities."""

import numpy as np
import pytest
import torch

from pi_dynn import Session
from pi_dynn.calibrate.scores import exit_scores
from pi_dynn.deploy.calibrated import calibrated_bundle, score_gate
from pi_dynn.errors import ModelError
from pi_dynn.runtime.bundle import Bundle

TEMPERATURES = [0.5, 1.3, 2.0, 0.8]
SCORES = ["max-probability", "margin", "entropy"]


@pytest.fixture(scope="module")
def images():
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def outputs(bundle, images):
    logits, scores = Session(bundle, threads=1, engine="fp32").forward_scored(images)
    return torch.stack(logits).numpy(), torch.stack(scores).numpy()


@pytest.mark.parametrize("score", ["gate", *SCORES])
def test_exits_are_judged_by_the_score_and_probabilities_divided(tiny_bundle, images, score):
    logits, gates = outputs(tiny_bundle, images)
    built = calibrated_bundle(tiny_bundle, thresholds=[0.3, 0.4, 0.5], score=score, temperatures=TEMPERATURES)
    again = Bundle(built.data)
    assert again.manifest.thresholds == [0.3, 0.4, 0.5] and again.manifest.macs == tiny_bundle.manifest.macs
    assert again.manifest.notes["calibration"] == {"score": score, "temperatures": TEMPERATURES}
    assert again.manifest.notes["made_from"] == tiny_bundle.sha256 != again.sha256
    divided, scores = outputs(again, images)
    assert divided == pytest.approx(logits / np.array(TEMPERATURES)[:, None, None], rel=1e-3, abs=1e-4)
    assert scores[:-1] == pytest.approx(exit_scores(score, logits, gates)[:-1], abs=1e-4)


def test_it_leaves_where_the_thresholds_say(tiny_bundle, images):
    logits, _ = outputs(tiny_bundle, images)
    margins = exit_scores("margin", logits, None)
    limits = [float(np.median(one)) for one in margins[:-1]]
    session = Session(calibrated_bundle(tiny_bundle, thresholds=limits, score="margin"), threads=1, engine="fp32")
    expected = [next((k for k in range(3) if margins[k, i] >= limits[k]), 3) for i in range(6)]
    assert [session.classify(image).exit_index for image in images] == expected and len(set(expected)) > 1
    assert [one.exit_index for one in session.classify_many(images, batch_size=4)] == expected


def test_a_score_gate_takes_temperatures_once_more(tiny_bundle, images):
    entropies = calibrated_bundle(tiny_bundle, thresholds=[0.5] * 3, score="entropy")
    again = calibrated_bundle(entropies, thresholds=[0.5] * 3, temperatures=TEMPERATURES)
    assert outputs(again, images)[1] == pytest.approx(outputs(entropies, images)[1], abs=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_gates_where_an_exit_is_certain_or_torn(score):
    gate = torch.jit.script(score_gate(score, 4))
    values = torch.sigmoid(gate(torch.tensor([[90.0, 0, 0, 0], [5.0, 5.0, -90, -90], [1.0, 1.0, 1.0, 1.0]])).double())
    certain, torn, lost = values.tolist()
    assert torch.isfinite(values).all() and certain == pytest.approx(1.0)
    assert torn == pytest.approx({"max-probability": 0.5, "margin": 0.0, "entropy": 0.5}[score], abs=1e-5)
    assert lost == pytest.approx({"max-probability": 0.25, "margin": 0.0, "entropy": 0.0}[score], abs=1e-5)


def test_what_cannot_be_built_in(tiny_bundle):
    with pytest.raises(ModelError, match="a gate sees its own exit only"):
        calibrated_bundle(tiny_bundle, thresholds=[0.5] * 3, score="patience")
    with pytest.raises(ModelError, match="no score 'luck'"):
        calibrated_bundle(tiny_bundle, thresholds=[0.5] * 3, score="luck")
    with pytest.raises(ModelError, match="4 answers need as many positive temperatures"):
        calibrated_bundle(tiny_bundle, thresholds=[0.5] * 3, temperatures=[1.0])

"""Conditions judged and summarised by hand-made outputs, without a network."""

from types import SimpleNamespace

import numpy as np
import pytest

from pi_dynn.data.corruptions import ALEXNET_ERRORS, PUBLISHED, SEVERITIES
from pi_dynn.evaluate.outputs import ExitOutputs
from pi_dynn.evaluate.records import ConditionResult, RobustnessResult
from pi_dynn.evaluate.robustness import corrupted_conditions, judge_conditions, summarise

MANIFEST = SimpleNamespace(blocks=[2, 11], macs=[10, 40])


def outputs(early: int, right: int, images: int = 100, among=None) -> ExitOutputs:
    """`early` of the images leave at the first exit; `right` of all are answered rightly by both."""
    logits = np.zeros((2, images, 3))
    logits[:, :right, 0], logits[:, right:, 1] = 1.0, 1.0
    scores = np.stack([np.arange(images) < early, np.ones(images)]).astype(float)
    return ExitOutputs(logits, scores, np.zeros(images, dtype=int), [], among=among)


def result(name, severity, acc1, deep=0.9) -> ConditionResult:
    return ConditionResult(name, severity, 100, 0, acc1, deep, 20.0, 6.0, [0.5, 0.5], None)


def test_conditions_are_judged_against_the_clean_exits():
    outputs_of = {None: outputs(60, 90), "fog": outputs(10, 50), "snow": outputs(58, 70)}
    conditions = [(name, None if name is None else 3, None, None) for name in outputs_of]
    clean, fog, snow = judge_conditions(conditions, lambda condition: outputs_of[condition[0]], [0.5], MANIFEST)
    assert (clean.acc1, clean.mean_macs, clean.mean_depth, clean.p_value) == (0.9, 22.0, 6.6, None)
    assert (fog.acc1, fog.exit_rates) == (0.5, [0.1, 0.9]) and fog.p_value < 1e-9 < 0.5 < snow.p_value
    (on_record,) = judge_conditions(conditions[1:2], lambda _: outputs_of["fog"], [0.5], MANIFEST, expected=[0.1, 0.9])
    assert on_record.p_value == pytest.approx(1.0)


def test_answers_among_a_few_classes_are_not_lost_to_the_others():
    assert outputs(0, 40).right[1].mean() == 0.4
    assert outputs(0, 40, among=[0, 2]).right[1].mean() == 1.0  # class 1 cannot be meant


def test_conditions_on_the_fly_start_with_the_clean_images():
    conditions = list(corrupted_conditions("data", ["fog"], [1, 5]))
    assert [condition[:2] for condition in conditions] == [(None, None), ("fog", 1), ("fog", 5)]
    assert conditions[0][3] is None and callable(conditions[1][3])


def test_mean_corruption_errors():
    results = [result(None, None, 0.9), result("fog", 1, 0.8), result("fog", 5, 0.6), result("snow", 1, 0.5, 0.6)]
    summary = summarise(results, published=False)
    assert summary.errors == pytest.approx({"fog": 0.3, "snow": 0.5}) and summary.mean_error == pytest.approx(0.4)
    assert summary.beyond_clean == pytest.approx(0.3) and summary.full_depth_mean_error == pytest.approx(0.25)
    assert summary.relative is None and summarise(results[:1], published=False) is None


def test_alexnets_own_errors_make_one():
    whole = [result(name, level, 1 - ALEXNET_ERRORS[name], 1.0) for name in PUBLISHED for level in SEVERITIES]
    summary = summarise(whole, published=True)
    assert summary.relative == pytest.approx(1.0) and summary.full_depth_relative == 0.0
    assert summary.beyond_clean is None
    assert summarise(whole[1:], published=True).relative is None  # one severity is missing
    saved = RobustnessResult("c", "imagenet-c", [0.5], [2, 11], whole, summary, "ab")
    assert RobustnessResult.from_dict(saved.to_dict()) == saved

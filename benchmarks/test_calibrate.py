"""Search over the greatest case asked for: 11 exits, 100,000 images, 100 classes."""

import numpy as np
import pytest

from pi_dynn.calibrate.goal import Goal
from pi_dynn.calibrate.outcomes import ExitOutcomes
from pi_dynn.calibrate.scores import SCORES
from pi_dynn.calibrate.search import search, search_exactly
from tests.calibrate.synthetic import synthetic_outcomes


@pytest.fixture(scope="module")
def outcomes() -> ExitOutcomes:
    return synthetic_outcomes(100_000, 11)


@pytest.mark.parametrize("find", [search, search_exactly])
def test_search(benchmark, outcomes, find):
    goal = Goal(accuracy=outcomes.full_depth_accuracy - 0.005)
    point = benchmark.pedantic(find, (outcomes, goal), rounds=3)
    assert goal.met_by(point)


@pytest.mark.parametrize("name", SCORES)
def test_scores(benchmark, name):
    logits = np.random.default_rng(0).standard_normal((11, 100_000, 100), dtype=np.float32)
    assert benchmark.pedantic(SCORES[name], (logits,), rounds=1).shape == (11, 100_000)

"""The published practice, and the published exit tables recomputed from one record per image."""

import numpy as np
import pytest

from pi_dynn.calibrate.outcomes import NEVER, ExitOutcomes, operating_point
from pi_dynn.calibrate.sweep import PUBLISHED_GRID, prune, sweep
from pi_dynn.errors import CalibrationError
from tests.calibrate.synthetic import synthetic_outcomes

# layer: images that left there, and how many of them were answered rightly; acc@1 and mean blocks as published
PUBLISHED = {
    "NaSC, distilled": ({7: (1080, 1073), 9: (1253, 1238), 10: (1171, 1165), 11: (496, 439)}, 97.875, 10.001),
    "PatternNet, distilled": ({5: (1357, 1354), 7: (2449, 2433), 9: (2081, 2029), 11: (193, 162)}, 98.322, 8.365),
    "PatternNet": ({2: (2358, 2335), 4: (1568, 1554), 7: (866, 864), 9: (828, 825), 11: (460, 451)}, 99.161, 5.862),
    "NaSC": ({1: (1220, 1209), 4: (1947, 1904), 9: (802, 757), 11: (31, 25)}, 97.375, 5.142),
    "RESISC45": ({4: (1392, 1389), 5: (1995, 1968), 7: (2266, 2197), 11: (647, 514)}, 96.317, 7.115),
    "UCM": ({7: (139, 139), 8: (67, 67), 9: (153, 150), 11: (61, 58)}, 98.571, 9.469),
    "CIFAR-10": ({7: (1944, 1944), 8: (3580, 3570), 9: (3178, 3161), 11: (1298, 1170)}, 98.450, 9.513),
}
PUBLISHED_ACCURACIES = {
    "NaSC, distilled": [99.352, 98.803, 99.488, 88.508],
    "PatternNet, distilled": [99.779, 99.347, 97.501, 83.938],
    "PatternNet": [99.025, 99.107, 99.769, 99.638, 98.043],
    "NaSC": [99.098, 97.791, 94.389, 80.645],
    "RESISC45": [99.784, 98.647, 96.955, 79.444],
    "UCM": [100, 100, 98.039, 95.082],
    "CIFAR-10": [100, 99.721, 99.465, 90.139],
}


def published_outcomes(layers: dict[int, tuple[int, int]], threshold: float, seed: int) -> ExitOutcomes:
    """One record per image, shuffled: it reaches the threshold first at its exit. Costs are blocks run."""
    rng = np.random.default_rng(seed)
    counts = [count for count, _ in layers.values()]
    exits = np.repeat(np.arange(len(layers)), counts)
    right_here = np.concatenate([np.arange(count) < good for count, good in layers.values()])
    order = rng.permutation(len(exits))
    exits, right_here = exits[order], right_here[order]
    depth = np.arange(len(layers))[:, None]
    scores = rng.uniform(0.0, threshold - 0.01, (len(layers), len(exits)))
    scores = np.where(depth >= exits, rng.uniform(threshold, 1.0, scores.shape), scores)
    right = np.where(depth == exits, right_here, rng.random(scores.shape) < 0.5)
    return ExitOutcomes(scores, right, [layer + 1 for layer in layers])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_exit_tables(name):
    layers, acc1, mean_blocks = PUBLISHED[name]
    point = sweep(published_outcomes(layers, 0.8, seed=1), [0.8])[0]
    images = sum(count for count, _ in layers.values())
    assert [round(rate * images) for rate in point.exit_rates] == [count for count, _ in layers.values()]
    assert [100 * value for value in point.exit_accuracies] == pytest.approx(PUBLISHED_ACCURACIES[name], abs=5e-4)
    assert round(100 * point.accuracy, 3) == pytest.approx(acc1, abs=5e-4)
    assert round(point.mean_cost, 3) == pytest.approx(mean_blocks, abs=5e-4)
    by_exit = zip(point.exit_rates, point.exit_accuracies, strict=True)
    assert sum(rate * accuracy for rate, accuracy in by_exit) == pytest.approx(point.accuracy)


def test_the_published_grid():
    assert PUBLISHED_GRID == (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


def test_higher_thresholds_cost_more():
    points = sweep(synthetic_outcomes(2000))
    costs = [point.mean_cost for point in points]
    assert costs == sorted(costs) and costs[0] < costs[-1]
    assert [point.settings["threshold"] for point in points] == list(PUBLISHED_GRID)


def test_pruning_keeps_the_exits_of_greatest_rate_times_accuracy():
    outcomes = synthetic_outcomes(2000, exits=6)
    before = sweep(outcomes, [0.8])[0]
    after = prune(outcomes, before, keep=2)
    worth = [rate * accuracy for rate, accuracy in zip(before.exit_rates, before.exit_accuracies, strict=True)][:-1]
    best = sorted(np.argsort(worth)[-2:].tolist())
    assert [k for k, value in enumerate(after.thresholds) if value != NEVER] == best
    assert all(after.exit_rates[k] == 0 for k in range(5) if k not in best)
    assert after == operating_point(outcomes, after.thresholds, threshold=0.8, kept=2.0)


def test_pruning_a_harmful_exit_raises_accuracy():
    scores, right = np.ones((3, 10)), np.ones((3, 10))
    scores[0, 5:], right[1] = 0.0, 0.0
    outcomes = ExitOutcomes(scores, right, [1, 2, 3])
    before = sweep(outcomes, [0.5])[0]
    assert (before.accuracy, prune(outcomes, before, keep=1).accuracy) == (0.5, 1.0)


def test_an_empty_grid():
    with pytest.raises(CalibrationError, match="grid of thresholds is empty"):
        sweep(synthetic_outcomes(10), [])

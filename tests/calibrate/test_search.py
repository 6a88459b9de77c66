"""Per-exit thresholds: the goal is met, common thresholds are beaten, and small cases are solved exactly."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_dynn.calibrate.coordinate import CoordinateSearch, neighbourhood_mean
from pi_dynn.calibrate.goal import Goal, knee, pareto, pick
from pi_dynn.calibrate.outcomes import NEVER, ExitOutcomes, operating_point
from pi_dynn.calibrate.paths import path_totals, shifted_path
from pi_dynn.calibrate.scores import exit_scores
from pi_dynn.calibrate.search import COMMON_GRID, frontier, search, search_exactly, search_with_frontier
from pi_dynn.calibrate.sweep import sweep
from pi_dynn.errors import CalibrationError
from tests.calibrate.synthetic import synthetic_outcomes


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(5, 60), st.floats(0.0, 0.3))
@settings(max_examples=8)
def test_a_target_is_met(seed, exits, images, loss):
    outcomes = synthetic_outcomes(images, exits, seed)
    goal = Goal(accuracy=max(outcomes.full_depth_accuracy - loss, 0.01))
    point = search(outcomes, goal)
    assert goal.met_by(point) and point == operating_point(outcomes, point.thresholds)
    common = [point for point in sweep(outcomes, COMMON_GRID) if goal.met_by(point)]
    assert search_exactly(outcomes, goal).mean_cost <= min((point.mean_cost for point in common), default=np.inf)


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(5, 60), st.floats(0.0, 1.0))
@settings(max_examples=8)
def test_a_budget_is_kept(seed, exits, images, share):
    outcomes = synthetic_outcomes(images, exits, seed)
    low, high = outcomes.costs[0], outcomes.costs[-1]
    goal = Goal(budget=float(low + share * (high - low)))
    assert goal.met_by(search(outcomes, goal))
    common = [point.accuracy for point in sweep(outcomes, COMMON_GRID) if goal.met_by(point)]
    assert search_exactly(outcomes, goal).accuracy >= max(common, default=0.0)


def gain_on_new_images(population: ExitOutcomes, images: int, level: float, draws: int) -> np.ndarray:
    """Points of accuracy gained over a common threshold at the same cost, on the whole population."""
    accuracy, cost = path_totals(population, shifted_path(np.zeros(population.early_exits)))
    gains = []
    for seed in range(draws):
        finding = population.subset(np.random.default_rng(seed).integers(0, population.images, images))
        budget = operating_point(finding, [level] * population.early_exits).mean_cost
        point = operating_point(population, search(finding, Goal(budget=budget)).thresholds)
        gains.append(100 * (point.accuracy - np.interp(point.mean_cost, cost, accuracy)))
    return np.array(gains)


@pytest.mark.parametrize("level", [0.7, 0.9])
def test_few_images_lose_nothing_to_the_sweep_at_equal_cost(level):
    gains = gain_on_new_images(synthetic_outcomes(8000), 250, level, draws=6)
    assert gains.mean() > -0.15 and gains.min() > -0.6


def test_few_images_gain_where_an_exit_is_overconfident():
    outcomes = synthetic_outcomes(8000)
    scores = outcomes.scores.copy()
    scores[0] = 1.0 - 0.2 * (1.0 - scores[0])
    gains = gain_on_new_images(ExitOutcomes(scores, outcomes.right, outcomes.costs), 250, 0.9, draws=6)
    assert gains.mean() > 0.5 and gains.min() > -0.3


@pytest.mark.parametrize("seed", range(4))
def test_small_cases_come_close_to_trying_everything(seed):
    outcomes = synthetic_outcomes(12, 3, seed)
    choices = [[0.0, *np.unique(scores), NEVER] for scores in outcomes.scores[:-1]]
    everything = [operating_point(outcomes, limits) for limits in itertools.product(*choices)]
    for loss in (0.0, 0.1, 0.3):
        goal = Goal(accuracy=outcomes.full_depth_accuracy - loss)
        best = pick(everything, goal)
        assert search_exactly(outcomes, goal).mean_cost <= 1.05 * best.mean_cost


def test_each_exit_is_judged_on_those_who_get_there():
    # Exit 2 is always wrong about those whom exit 1 lets go, and always right about the others.
    easy = np.arange(100) < 50
    scores = np.stack([np.where(easy, 0.9, 0.1), np.where(easy, 0.9, 0.6), np.ones(100)])
    right = np.stack([easy, ~easy, np.ones(100, dtype=bool)])
    point = search_exactly(ExitOutcomes(scores, right, [1, 2, 4]), Goal(accuracy=1.0))
    assert (point.accuracy, point.mean_cost, point.exit_rates) == (1.0, 1.5, [0.5, 0.5, 0.0])


def test_exits_that_only_harm_are_disabled():
    rng = np.random.default_rng(0)
    outcomes = ExitOutcomes(rng.random((3, 200)), np.array([[0], [0], [1]]) * np.ones((3, 200)), [1, 2, 3])
    assert search(outcomes, Goal(accuracy=1.0)).thresholds == [NEVER, NEVER]


@pytest.mark.parametrize("views", [1, 4])
def test_a_budget_is_not_spent_where_depth_loses(views):
    # Full depth is wrong about one image in ten that the exit before it has right.
    good = synthetic_outcomes(500)
    right = good.right.copy()
    right[-1] = right[-2] & (np.arange(500) % 10 > 0)
    thinking_too_long = ExitOutcomes(
        good.scores.repeat(views, 1), right.repeat(views, 1), good.costs, np.arange(500).repeat(views)
    )
    point = search(thinking_too_long, Goal(budget=float(good.costs[-1])))
    assert point.accuracy > thinking_too_long.full_depth_accuracy + 0.03 and point.mean_cost < 0.9 * good.costs[-1]


def test_a_budget_is_spent_where_a_cheaper_choice_gains_no_more_than_chance():
    # Leaving early is wrong about two images and full depth about three others: one standard error is 2.2 images.
    # With nine others it is 3.3.
    scores, right = np.stack([np.full(200, 0.5), np.ones(200)]), np.ones((2, 200), dtype=bool)
    right[0, :2], right[1, -3:] = False, False
    point = search(ExitOutcomes(scores, right, [1, 2]), Goal(budget=2.0))
    assert (point.mean_cost, point.accuracy) == (2.0, 0.985)
    right[1, -9:] = False
    assert search(ExitOutcomes(scores, right, [1, 2]), Goal(budget=2.0)).mean_cost == 1.0


def test_the_frontier_rises_and_reaches_full_depth():
    outcomes = synthetic_outcomes(3000)
    points = frontier(outcomes)
    assert len(points) > 10
    for cheap, dear in itertools.pairwise(points):
        assert cheap.mean_cost < dear.mean_cost and cheap.accuracy < dear.accuracy
    assert points[-1].accuracy >= outcomes.full_depth_accuracy
    assert points[0].mean_cost == outcomes.costs[0]


def test_the_point_is_on_the_frontier_returned_with_it():
    outcomes = synthetic_outcomes(1500)
    goal = Goal(accuracy=outcomes.full_depth_accuracy - 0.01)
    point, points = search_with_frontier(outcomes, goal)
    assert any(point.thresholds == point.thresholds for point in points)
    assert points == pareto(points)


def test_an_overconfident_exit_gets_its_own_threshold():
    # The first exit is as sure as the others and wrong more often: no common threshold suits all.
    outcomes = synthetic_outcomes(6000)
    scores = outcomes.scores.copy()
    scores[0] = 1.0 - 0.2 * (1.0 - scores[0])
    outcomes = ExitOutcomes(scores, outcomes.right, outcomes.costs)
    finding, reporting = outcomes.subset(np.arange(3000)), outcomes.subset(np.arange(3000, 6000))
    for common in sweep(finding, [0.9, 0.95]):
        ours = operating_point(reporting, search(finding, Goal(budget=common.mean_cost)).thresholds)
        theirs = operating_point(reporting, common.thresholds)
        assert ours.accuracy > theirs.accuracy + 0.01 and ours.mean_cost < 1.02 * theirs.mean_cost


def test_the_neighbourhood_mean():
    mass = np.full(101, 4)
    rising = np.arange(101.0)
    assert neighbourhood_mean(3.0 * mass, mass) == pytest.approx(3.0)
    smoothed = neighbourhood_mean(rising * mass, mass)
    assert smoothed[20:80] == pytest.approx(rising[20:80]) and smoothed[100] < 100.0
    single = np.zeros(101)
    single[50] = 4.0
    smoothed = neighbourhood_mean(single, mass)
    assert smoothed[50] == pytest.approx(4.0 / 404**0.75) and smoothed[20] == 0.0
    assert (neighbourhood_mean(np.zeros(5), np.zeros(5, dtype=int)) == 0.0).all()


def test_one_lucky_image_does_not_enable_an_exit():
    # Among the surest of a bad exit one in four is right by chance; the surest of all happens to be.
    scores = np.stack([np.linspace(0.0, 0.99, 400), np.ones(400)])
    right = np.stack([np.arange(400) % 4 == 3, np.ones(400, dtype=bool)])
    outcomes = ExitOutcomes(scores, right, [1, 2])
    levels = {
        smoothing: CoordinateSearch(outcomes, smoothing).improve([0], lambda hits, spent: hits - 0.1 * spent)
        for smoothing in (True, False)
    }
    assert levels[True] == [400] and levels[False] == [399]


def test_without_a_goal_it_takes_the_knee():
    outcomes = synthetic_outcomes(1000)
    assert search(outcomes, Goal()) == knee(frontier(outcomes))


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_levels_say_what_thresholds_do(seed):
    outcomes = synthetic_outcomes(40, 4, seed)
    steps = CoordinateSearch(outcomes, smoothing=False)
    levels = [int(np.random.default_rng(seed).integers(0, top + 1)) for top in steps.full_depth]
    thresholds = steps.thresholds(levels)
    assert steps.levels(thresholds) == levels
    spent = []
    steps.improve(levels, lambda hits, cost: spent.append((hits, cost)) or -np.arange(len(hits)) * 0.0)
    hits, cost = spent[0]  # the last early exit, all its levels, the others as they are
    for level in range(len(hits)):
        point = operating_point(outcomes, [*thresholds[:-1], steps.thresholds([*levels[:-1], level])[-1]])
        assert hits[level] / 40 == pytest.approx(point.accuracy)
        assert cost[level] / 40 == pytest.approx(point.mean_cost)


def test_goals_out_of_reach():
    outcomes = synthetic_outcomes(200)
    with pytest.raises(CalibrationError, match=r"target accuracy of 100.00 % cannot be reached: full depth has 9"):
        search(outcomes, Goal(accuracy=1.0))
    with pytest.raises(CalibrationError, match="a budget of 3 is below the 20 that leaving at the first exit costs"):
        search(outcomes, Goal(budget=3))
    with pytest.raises(CalibrationError, match="cannot be reached"):
        search(outcomes, Goal(accuracy=float("nan")))
    with pytest.raises(CalibrationError, match="give one of them"):
        Goal(accuracy=0.9, budget=50)


def test_memory_of_the_greatest_case_stays_below_two_gigabytes():
    outcomes = synthetic_outcomes(100_000, 11)
    one_exit = np.random.default_rng(0).standard_normal((1, 100_000, 100), dtype=np.float32)
    tracemalloc.start()
    exit_scores("entropy", one_exit, None)
    CoordinateSearch(outcomes).improve([0] * 10, lambda hits, spent: hits - 1e-3 * spent)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak + 11 * one_exit.nbytes < 2e9  # the other exits' scores need no more, one after the other

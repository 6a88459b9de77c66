"""Risk control: with probability 1 - delta at most epsilon of accuracy is lost on new data.

Thresholds are tested in the order of a path that is fixed in advance and begins with the safest; the search ends at
the first that fails (Learn then Test with fixed sequence testing). The guarantee holds for any distribution, network
and exit score, as long as new images come from the same distribution.

Two risks: "harm" counts images that full depth has right and the exits wrong; "gap" is the difference of the
two accuracies, in which images that only the exits have right compensate for harms.

Source: Angelopoulos et al., Learn then Test (2021), section 2.2; Jazbec et al., Fast yet Safe: Early-Exiting with
Risk Control (2024), the performance gap risk.
Shape letters: K exits including the last answer, N samples, M steps of the path.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pi_dynn.calibrate.bounds import GAP, HARM, images_needed, p_value, upper_bound
from pi_dynn.calibrate.outcomes import ExitOutcomes, leave_at, operating_point
from pi_dynn.calibrate.records import OperatingPoint, Promise
from pi_dynn.calibrate.search import frontier
from pi_dynn.errors import CalibrationError
from pi_dynn.records import NEVER

# Even steps on the logit scale: scores of good networks crowd near 1.
COMMON_PATH = tuple((1.0 / (1.0 + np.exp(-np.linspace(10.0, -4.0, 281)))).tolist())
_BETWEEN = 5  # steps from one point of the frontier to the next
FEW = 0.01  # a share of early leavers below which thresholds are of no use


@dataclass(frozen=True)
class RiskSettings:
    """The promised loss and how it is tested: with `corrected` by the exact test, without by the normal limit.

    Raises: CalibrationError for an epsilon or delta outside (0, 1), or a risk that is not known.
    """

    epsilon: float
    delta: float = 0.1
    risk: str = HARM
    corrected: bool = True

    def __post_init__(self) -> None:
        for name, value in (("epsilon", self.epsilon), ("delta", self.delta)):
            if not 0.0 < value < 1.0:
                raise CalibrationError(f"{name} must lie between 0 and 1, got {value!r}: 0.01 is one in a hundred")
        if self.risk not in (HARM, GAP):
            raise CalibrationError(f"no risk {self.risk!r}: give {HARM!r} or {GAP!r}")


def common_path(outcomes: ExitOutcomes) -> list[list[float]]:
    """Common thresholds, falling from full depth; a fixed path, so all images may be used to test it."""
    return [[NEVER] * outcomes.early_exits, *([value] * outcomes.early_exits for value in COMMON_PATH)]


def frontier_path(outcomes: ExitOutcomes) -> list[list[float]]:
    """Per-exit thresholds of the frontier from dear to cheap; to be tested on other images than `outcomes`."""
    corners = [[NEVER] * outcomes.early_exits, *(point.thresholds for point in reversed(frontier(outcomes)))]
    path = corners[:1]
    for dear, cheap in pairwise(corners):
        between = np.linspace(dear, cheap, _BETWEEN + 1)[1:]
        path += np.where(np.asarray(dear) >= NEVER, cheap, between).tolist()  # an exit is enabled in one step
    return path


def count_losses(
    outcomes: ExitOutcomes, path: Sequence[Sequence[float]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each step of the path harms (M, N) and helps (M, N) each image."""
    samples, full = np.arange(outcomes.images), outcomes.right[-1]
    answered = np.stack([outcomes.right[leave_at(outcomes.scores, step), samples] for step in path])
    return full & ~answered, ~full & answered


def last_safe(harms: NDArray[np.int64], helps: NDArray[np.int64], n: int, settings: RiskSettings) -> int:
    """Index of the last step before the first that fails the test on n images with these harms and helps (M,).

    -1 if the first step fails.
    """
    values = p_value(settings.risk, harms, helps, n, settings.epsilon, settings.corrected)
    failed = np.flatnonzero(values > settings.delta)
    return int(failed[0]) - 1 if len(failed) else len(harms) - 1


def control_risk(
    outcomes: ExitOutcomes, settings: RiskSettings, path: Sequence[Sequence[float]] | None = None
) -> tuple[OperatingPoint, Promise]:
    """The cheapest thresholds of the path (the common one by default) that keep the promise, and the promise.

    Raises: CalibrationError with the number of images needed, if these are too few for any thresholds with which
    images leave early.
    """
    _check_independent(outcomes)
    path = common_path(outcomes) if path is None else path
    harms, helps = (losses.sum(axis=1) for losses in count_losses(outcomes, path))
    step = last_safe(harms, helps, outcomes.images, settings)
    point = operating_point(outcomes, path[max(step, 0)])
    if step < 0 or point.exit_rates[-1] > 1.0 - FEW:
        raise CalibrationError(_refusal(outcomes, settings, path, harms, helps))
    bound = upper_bound(
        settings.risk, int(harms[step]), int(helps[step]), outcomes.images, settings.delta, settings.corrected
    )
    return point, Promise(settings.epsilon, settings.delta, settings.risk, settings.corrected, bound)


def split_control_risk(outcomes: ExitOutcomes, settings: RiskSettings, seed: int = 0) -> tuple[OperatingPoint, Promise]:
    """Per-exit thresholds: a random half of the images gives the path, the other half tests it.

    Raises: CalibrationError as `control_risk` does, and for several views of one photograph.
    """
    _check_independent(outcomes)
    order = np.random.default_rng(seed).permutation(outcomes.images)
    path_half, test_half = np.array_split(order, 2)
    return control_risk(outcomes.subset(test_half), settings, frontier_path(outcomes.subset(path_half)))


def _check_independent(outcomes: ExitOutcomes) -> None:
    if outcomes.photographs < outcomes.images:
        raise CalibrationError(
            f"{outcomes.images} views of {outcomes.photographs} photographs are not independent, which a promise "
            "needs: calibrate without --all-views"
        )


def _refusal(
    outcomes: ExitOutcomes,
    settings: RiskSettings,
    path: Sequence[Sequence[float]],
    harms: NDArray[np.int64],
    helps: NDArray[np.int64],
) -> str:
    """Why there are no thresholds, and how many images are needed at the safest step with early leavers."""
    n, epsilon = outcomes.images, settings.epsilon
    promise = f"at most {100 * epsilon:g} points lost with probability {100 * (1 - settings.delta):g} %"
    least = images_needed(settings.risk, 0.0, 0.0, epsilon, settings.delta, settings.corrected)
    if least is None:
        return f"cannot promise {promise}: no number of images would show so little; promise less"
    if n < least:
        return (
            f"{n} images are too few to promise {promise}: it takes {least} even if none is harmed; "
            "collect more or promise less"
        )
    useful = [k for k, step in enumerate(path) if (leave_at(outcomes.scores, step) < outcomes.early_exits).mean() > FEW]
    if not useful:
        return f"no threshold of the path lets an image leave early, so there is nothing to promise ({promise})"
    first = useful[0]
    needed = images_needed(
        settings.risk, harms[first] / n, helps[first] / n, epsilon, settings.delta, settings.corrected
    )
    lost = f"the safest thresholds that let an image leave early harm {harms[first]} of {n} images"
    if needed is None:
        return f"cannot promise {promise}: {lost}, and no number of images would show less; promise less"
    return f"{n} images are too few to promise {promise}: {lost}; at that rate it takes about {needed} images"

"""Comparison of energies: which may be compared, the difference with its interval, and the verdict."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pi_dynn import stats
from pi_dynn.energy.records import COMPARED_WITHIN, EnergyDifference, EnergyResult
from pi_dynn.energy.uncertainty import COVERAGE_FACTOR, scale_share
from pi_dynn.power import MeterInfo, RunEnergy, TrialEnergy, improvement
from pi_dynn.power.meter import ESTIMATED, MEASURED, SIMULATED

_LESS_REAL = (MEASURED, ESTIMATED, SIMULATED)


def compared_in_turns(
    result: EnergyResult,
    base_result: EnergyResult,
    energies: tuple[RunEnergy, RunEnergy],
    trials: tuple[Sequence[TrialEnergy], Sequence[TrialEnergy]],
    info: MeterInfo,
) -> EnergyResult:
    """The result with its difference from the baseline that was measured in turns with it, and its improvement.

    `energies` and `trials` are those of the result and of its baseline, which are paired in their order.
    """
    energy, base = energies
    pairs = list(zip(*trials, strict=False))
    changes_j = [one.net_j - other.net_j for one, other in pairs]
    own = energy.net_ci95_j is not None and base.net_ci95_j is not None
    interval_j = stats.mean_interval(changes_j) if own else None
    difference = _judged(result, base_result, float(np.mean(changes_j)), interval_j, scale_share(info))
    if base.net_j <= 0 or not (base_result.valid and result.valid):
        return replace(result, in_turns=difference)
    ratio = stats.mean_ratio_interval([one.net_j for one, _ in pairs], [other.net_j for _, other in pairs])
    return replace(
        result,
        in_turns=difference,
        improvement=improvement(base.net_j, energy.net_j),
        improvement_ci95=(1.0 - ratio[1], 1.0 - ratio[0]) if ratio is not None and own else None,
    )


def baselines(results: Sequence[EnergyResult], across: bool = False) -> list[EnergyResult]:
    """The baseline of each result: the first result of its board and data set, or of all with `across`."""
    first: dict[tuple[str, str], EnergyResult] = {}
    bases = []
    for result in results:
        board = result.board.model if result.board is not None else ""
        bases.append(first.setdefault(("", "") if across else (board, result.dataset), result))
    return bases


def obstacles(result: EnergyResult, base: EnergyResult) -> list[str]:
    """Reasons why the two may not be compared; empty if they may."""
    reasons = [
        f"{what} is {getattr(result, what)!r}, there {getattr(base, what)!r}"
        for what in COMPARED_WITHIN
        if getattr(result, what) != getattr(base, what)
    ]
    return reasons + [f"{one.name} is invalid" for one in (result, base) if not one.valid]


def compare_results(results: Sequence[EnergyResult], across: bool = False) -> list[EnergyResult]:
    """The results with their improvement on their baseline, in the order given.

    If the two may not be compared (another scope, other rails, another shunt, an invalid run) there is none, and a
    note says why. With `across` the first result is the baseline of all, whatever its board, data set and scope. A run
    with its own baseline keeps the improvement measured in alternation with it.
    """
    compared = []
    for result, base in zip(results, baselines(results, across), strict=True):
        if base is result or result.in_turns is not None:
            compared.append(result)
            continue
        reasons = obstacles(result, base)
        saved = None
        valid = result.valid and base.valid
        if (not reasons or across and valid) and base.net_j is not None and base.net_j > 0 and result.net_j is not None:
            saved = improvement(base.net_j, result.net_j)
        notes = [f"{result.name} is not compared with {base.name}: {reason}" for reason in reasons]
        compared.append(replace(result, improvement=saved, notes=[*result.notes, *notes]))
    return compared


def energy_differences(results: Sequence[EnergyResult], across: bool = False) -> list[EnergyDifference]:
    """Each result less its baseline, with an interval and a verdict, or the reason why there is none.

    A run that was measured in turns with its baseline has the difference of its pairs of trials. Other runs are
    independent; only those of one meter and scope are compared at all, unless `across` is set, and even then they
    get no verdict.
    """
    differences = []
    for result, base in zip(results, baselines(results, across), strict=True):
        if result.in_turns is not None:
            differences.append(result.in_turns)
            continue
        if base is result or result.net_j is None or base.net_j is None:
            continue
        reasons = obstacles(result, base)
        if reasons and result.valid and base.valid and not across:
            continue  # a note says why
        differences.append(_independent_difference(result, base, "; ".join(reasons) or None))
    return differences


def _independent_difference(result: EnergyResult, base: EnergyResult, obstacle: str | None) -> EnergyDifference:
    assert result.net_j is not None and base.net_j is not None
    interval_j = None
    if result.net_ci95_j and base.net_ci95_j and result.net_se_j is not None and base.net_se_j is not None:
        interval_j = stats.independent_difference_interval(
            base.net_j, base.net_se_j, base.trials, result.net_j, result.net_se_j, result.trials
        )
    return _judged(result, base, result.net_j - base.net_j, interval_j, None, obstacle)


def _judged(
    result: EnergyResult,
    base: EnergyResult,
    change_j: float,
    interval_j: tuple[float, float] | None,
    scale: float | None,
    obstacle: str | None = None,
) -> EnergyDifference:
    """The difference of two results with its verdict, which only valid runs with an interval get.

    `scale` is the standard uncertainty of the meter's scale as a share, None if unknown; `obstacle` is why the two
    may not be compared.
    """
    invalid = [one.name for one in (result, base) if not one.valid]
    if obstacle is None and invalid:
        obstacle = f"{' and '.join(invalid)} {'are' if len(invalid) > 1 else 'is'} invalid"
    if obstacle is None and interval_j is None:
        obstacle = f"it takes {stats.LEAST_TRIALS} trials of each, every one with its own idle windows"
    expanded = None
    if interval_j is not None and scale is not None:
        expanded = math.hypot((interval_j[1] - interval_j[0]) / 2, COVERAGE_FACTOR * scale * abs(change_j))
    if obstacle is not None or interval_j is None:
        verdict = "no verdict"
    else:
        verdict = "less" if interval_j[1] < 0 else "more" if interval_j[0] > 0 else "no difference shown"
    labels = [one.label for one in (base, result)]
    return EnergyDifference(
        name=result.name,
        baseline=base.name,
        net_j=change_j,
        net_ci95_j=interval_j,
        verdict=verdict,
        expanded_j=expanded,
        label=max(labels, key=_LESS_REAL.index),
        valid=not invalid,
        obstacle=obstacle,
        board="" if result.board is None else result.board.model,
        dataset=result.dataset,
    )

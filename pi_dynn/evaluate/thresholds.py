"""Calibration of a bundle from the outputs of its exits on held-out images, and the costs of its exits."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pi_dynn.calibrate.outcomes import ExitOutcomes, check_labels, leave_at
from pi_dynn.calibrate.records import CalibrationRecord, ExitReliability
from pi_dynn.calibrate.reject import Rejection, class_means, exit_similarities, fit_rejection
from pi_dynn.calibrate.rules import Choice, RuleSettings, choose
from pi_dynn.calibrate.scores import GATE, exit_scores
from pi_dynn.calibrate.temperature import exit_reliability, fit_temperatures
from pi_dynn.energy.runs import is_run, replay_run
from pi_dynn.energy.text import source as energy_source
from pi_dynn.errors import CalibrationError
from pi_dynn.evaluate.outputs import ExitOutputs
from pi_dynn.latency.records import LatencyRow
from pi_dynn.records import parsed_json
from pi_dynn.runtime.manifest import Manifest


class ExitCosts(NamedTuple):
    """The cost of every exit (K), and where the figures come from, for people: meter and label if it is energy."""

    values: list[float]
    source: str


@dataclass(frozen=True)
class CalibrationSource:
    """The source of images and costs: a data set, the hash of its split file and the part; costs (K)."""

    dataset: str
    split: str | None
    part: str | None
    costs: Sequence[float]
    cost_unit: str
    cost_source: str = ""


def exit_outcomes(outputs: ExitOutputs, score: str, costs: Sequence[float]) -> ExitOutcomes:
    """The outcomes of collected outputs with the score `score`. Raises: CalibrationError for an unknown one or NaN."""
    scores = exit_scores(score, outputs.logits, outputs.scores)
    return ExitOutcomes(scores, outputs.right, np.asarray(costs, dtype=np.float64), outputs.groups)


def calibrate(
    outputs: ExitOutputs,
    manifest: Manifest,
    bundle: str,
    source: CalibrationSource,
    rule: str,
    settings: RuleSettings,
    score: str = GATE,
) -> tuple[CalibrationRecord, Choice]:
    """The record of thresholds chosen by `rule`, and the rule's choice with all its points.

    `bundle` is the hash of the bundle file. Temperatures are fitted on the same images.

    Raises: CalibrationError for images, scores or goals that cannot be used.
    """
    check_labels(outputs.labels, len(manifest.labels))
    outcomes = exit_outcomes(outputs, score, source.costs)
    choice = choose(rule, outcomes, settings)
    record = CalibrationRecord(
        rule=rule,
        score=score,
        thresholds=choice.point.thresholds,
        exits=manifest.blocks,
        exit_rates=choice.point.exit_rates,
        accuracy=choice.point.accuracy,
        full_depth_accuracy=outcomes.full_depth_accuracy,
        mean_cost=choice.point.mean_cost,
        costs=outcomes.costs.tolist(),
        cost_unit=source.cost_unit,
        cost_source=source.cost_source,
        images=outcomes.photographs,
        bundle=bundle,
        dataset=source.dataset,
        split=source.split,
        part=source.part,
        settings=asdict(settings) | choice.point.settings | {"views": outcomes.images // outcomes.photographs},
        curve=choice.curve,
        temperatures=fit_temperatures(outputs.logits, outputs.labels, outputs.groups),
        promise=choice.promise,
    )
    return record, choice


def reliability(outputs: ExitOutputs, record: CalibrationRecord) -> list[ExitReliability]:
    """The calibration error of every exit on `outputs` before and after the record's temperatures."""
    return exit_reliability(outputs.logits, outputs.labels, record.temperatures or [], record.exits)


def rejection_of(
    known: ExitOutputs, outputs: ExitOutputs, thresholds: Sequence[float], classes: Sequence[str], alpha: float
) -> Rejection:
    """When to answer "none of these": class means from `known` images, the limit from others at these thresholds.

    Raises: CalibrationError for images too few to promise `alpha`, or a class without known images.
    """
    means = class_means(known.logits, known.labels, classes)
    similarities = exit_similarities(outputs.logits, leave_at(outputs.scores, thresholds), means)
    if outputs.groups is not None:  # views of one photograph are no independent images
        similarities = similarities[np.unique(outputs.groups, return_index=True)[1]]
    return fit_rejection(similarities, means, alpha)


def rescored(outputs: ExitOutputs, record: CalibrationRecord) -> ExitOutputs:
    """The outputs with the record's score in place of the gate's. Raises: CalibrationError."""
    return replace(outputs, scores=exit_scores(record.score, outputs.logits, outputs.scores))


def read_exit_costs(path: str | Path, unit: str, blocks: Sequence[int], bundle: str) -> ExitCosts:
    """Cost of each exit of `blocks` (K), the last answer included, in `unit`: "s" or "J".

    `path` is the output of `energy --each-exit --save` or `benchmark --each-exit --json`. A cost below that of the
    exit before, which is noise, is raised to it.

    Raises: CalibrationError for a file without these figures, an energy run of another bundle (latencies do not say of
    which they are), or energies that are invalid or not resolved.
    """
    path = Path(path)
    costs, source = _of_run(path, unit, bundle) if is_run(path) else _of_benchmark(path, unit, blocks[-1])
    values = {block: cost for block, cost in costs.items() if cost is not None}
    missing = [block for block in blocks if block not in values]
    if missing:
        raise CalibrationError(
            f"{path}: has no {'energy' if unit == 'J' else 'latency'} of the exit after block {missing[0]}: "
            "measure this bundle again with --each-exit"
        )
    return ExitCosts(np.maximum.accumulate([float(values[block]) for block in blocks]).tolist(), source)


def _of_run(path: Path, unit: str, bundle: str) -> tuple[dict[int, float | None], str]:
    results = [result for result in replay_run(path)[1] if result.bundle == bundle]
    if not results:
        raise CalibrationError(f"{path}: is a run of another bundle than {bundle[:12]}: measure this one")
    if unit == "J" and not results[-1].valid:
        raise CalibrationError(f"{path}: its energies are invalid ({results[-1].invalid_reasons[0]}): measure again")
    if unit == "J" and not results[-1].resolved:
        raise CalibrationError(f"{path}: its energies do not exceed their uncertainty: measure longer")
    figures = {row.block_index: row.net_j if unit == "J" else row.latency_s for row in results[-1].exits}
    return figures, f"energy run, {energy_source(results[-1])}" if unit == "J" else "energy run"


def _of_benchmark(path: Path, unit: str, last: int) -> tuple[dict[int, float | None], str]:
    """Medians of the forced exits and of the full depth, which ends with block `last`."""
    if unit == "J":
        raise CalibrationError(f"{path}: is no saved energy run: make one with `pi-dynn energy --each-exit --save`")
    try:
        entries = [parsed_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [LatencyRow.from_dict(entry) for entry in entries if "cold_start" not in entry]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CalibrationError(
            f"{path}: neither a saved energy run nor the output of `pi-dynn benchmark --json` ({error})"
        ) from error
    costs: dict[int, float | None] = {}
    for row in rows:
        block = last if row.block_index is None and row.name.endswith(", full depth") else row.block_index  # 0.1
        if block is not None:
            costs.setdefault(block, row.median_s)
    return costs, "benchmark"

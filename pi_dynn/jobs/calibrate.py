"""Thresholds for a bundle from the outputs of its exits on held-out images, as a record tied to that bundle."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from pi_dynn.calibrate.outcomes import ExitOutcomes, check_labels
from pi_dynn.calibrate.rules import Choice, RuleSettings, choose
from pi_dynn.calibrate.scores import GATE, INVERTED, exit_scores
from pi_dynn.calibrate.temperature import exit_reliability, fit_temperatures
from pi_dynn.calibration_records import CalibrationRecord, ExitReliability
from pi_dynn.jobs.evaluate import ExitOutputs
from pi_dynn.runtime.manifest import Manifest


@dataclass(frozen=True)
class CalibrationSource:
    """Where the images and the costs come from: a data set, the hash of its split file and the part; costs (K)."""

    dataset: str
    split: str | None
    part: str | None
    costs: Sequence[float]
    cost_unit: str


def exit_outcomes(outputs: ExitOutputs, score: str, costs: Sequence[float]) -> ExitOutcomes:
    """The outcomes of collected outputs with the score named. Raises: CalibrationError for a bad one or NaN."""
    return ExitOutcomes(exit_scores(score, outputs.logits, outputs.scores), outputs.right, costs, outputs.groups)


def calibrate(
    outputs: ExitOutputs,
    manifest: Manifest,
    bundle: str,
    source: CalibrationSource,
    rule: str,
    settings: RuleSettings,
    score: str = GATE,
) -> tuple[CalibrationRecord, Choice]:
    """Choose thresholds by `rule`; the record to keep, and all that the rule looked at.

    `bundle` is the hash of the bundle file. Temperatures are fitted on the same images.

    Raises: CalibrationError for images, scores or goals that will not do.
    """
    check_labels(outputs.labels, len(manifest.labels))
    score = INVERTED if settings.inverted else score
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
        images=outcomes.photographs,
        bundle=bundle,
        dataset=source.dataset,
        split=source.split,
        part=source.part,
        settings=asdict(settings) | choice.point.settings | {"views": outcomes.images // outcomes.photographs},
        curve=choice.curve,
        temperatures=fit_temperatures(outputs.logits, outputs.labels),
        promise=choice.promise,
    )
    return record, choice


def reliability(outputs: ExitOutputs, record: CalibrationRecord) -> list[ExitReliability]:
    """How honest every exit is on `outputs` before and after the record's temperatures."""
    return exit_reliability(outputs.logits, outputs.labels, record.temperatures or [], record.exits)


def rescored(outputs: ExitOutputs, record: CalibrationRecord) -> ExitOutputs:
    """The same outputs with the record's score in place of the gate's. Raises: CalibrationError."""
    return replace(outputs, scores=exit_scores(record.score, outputs.logits, outputs.scores))

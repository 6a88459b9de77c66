"""`pi-dynn calibrate`."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pi_dynn.cli.options import (
    SessionChoice,
    check_form,
    json_option,
    layout_options,
    log_option,
    part_option,
    session_options,
    split_option,
)
from pi_dynn.cli.printing import show
from pi_dynn.cli.progress import progress
from pi_dynn.cli.rule_options import budget_and_unit, rule_options, rule_settings
from pi_dynn.cli.status import ExitStatus, show_error
from pi_dynn.text import counted

if TYPE_CHECKING:  # slow to import
    from pi_dynn.calibrate.records import CalibrationRecord, ExitReliability, RuleResult, StaticNetwork
    from pi_dynn.calibrate.reject import Rejection
    from pi_dynn.calibrate.rules import Choice
    from pi_dynn.data.folders import ImageFolder
    from pi_dynn.evaluate.outputs import ExitOutputs
    from pi_dynn.evaluate.thresholds import ExitCosts
    from pi_dynn.runtime.bundle import Bundle
    from pi_dynn.runtime.session import Session


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path), metavar="DATASET_DIR")
@rule_options
@split_option
@part_option("calibrate")
@layout_options
@click.option("--all-views", is_flag=True, help="Use the eight turned and flipped views of every image.")
@click.option("--compare", metavar="PART", help="Also compare all rules at equal cost on this part of the split.")
@click.option(
    "--static",
    multiple=True,
    metavar="BUNDLE|NAME=PERCENT@M",
    help="Also plot a network without exits: a bundle, or its accuracy at so many million multiply-adds.",
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="DIR", help="Save plots there, as SVG and PNG.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="RECORD", help="Save the record there.")
@click.option(
    "--fold",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Save a bundle with these thresholds, their score and fitted temperatures built in; the record is for it.",
)
@click.option(
    "--reject",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    metavar="PERCENT",
    help='With --fold: answer "none of these" so that at most this share of images like these is rejected.',
)
@click.option("--means-of", default="train", show_default=True, metavar="PART", help="... class means from this part.")
@log_option
@json_option
@session_options
def command(
    dataset: Path,
    split: Path | None,
    part: str,
    layout: str | None,
    partial: bool,
    all_views: bool,
    compare: str | None,
    static: tuple[str, ...],
    plot: Path | None,
    output: Path | None,
    fold: Path | None,
    reject: float | None,
    means_of: str,
    as_log: bool,
    as_json: bool,
    choice: SessionChoice,
    **options: Any,
) -> int:
    """Choose thresholds on held-out images: for an accuracy, for a budget, or with a promise.

    Use a part of a saved split that is not used otherwise: on images that the network was trained on its scores are
    overconfident, and accuracy on the images that thresholds were chosen on is too optimistic.

    \b
    Examples:
      pi-dynn calibrate ucm --split split.json --rule target-accuracy --max-loss 0.5 -o calibration/ucm.json
      pi-dynn calibrate ucm --split split.json --rule risk --epsilon 2 --compare test --plot plots
      pi-dynn calibrate ucm --rule budget --budget-mj 9 --costs run.json
      pi-dynn profile --fit && pi-dynn calibrate ucm --rule budget --budget-ms 9
    """
    from pi_dynn.data.layouts import open_data

    _check(split, compare, fold, reject)
    check_form(as_log, as_json)
    if as_log and options["rule"] != "sweep":
        raise click.UsageError("--log prints a sweep as published: give --rule sweep with it")
    budget, unit = budget_and_unit(options)
    opened = open_data(dataset, layout, partial)
    data = opened.part(part, split)
    others = opened.part(compare, split) if compare is not None else None
    known = opened.part(means_of, split) if reject is not None else None
    session = choice.open()

    from pi_dynn.calibrate.records import save_record
    from pi_dynn.evaluate.thresholds import CalibrationSource, calibrate

    sha256, named = _split_and_part(split, part)
    costs = _costs(session, options, unit)
    source = CalibrationSource(dataset.resolve().name, sha256, named, costs.values, unit, costs.source)
    outputs = _collect(session, data, f"calibrate on {part}", all_views=all_views)
    record, result = calibrate(
        outputs,
        session.manifest,
        session.bundle.sha256,
        source,
        options["rule"],
        rule_settings(options, budget),
        options["score"],
    )
    rejection = None if known is None or reject is None else _rejection(session, outputs, record, known, reject)
    kept = record if fold is None else _fold(session.bundle, record, fold, rejection)
    if output is not None:
        save_record(output, kept)
    evaluated = outputs if others is None else _collect(session, others, f"compare on {compare}")
    networks = _static(static, choice, others or data)
    flops = [2.0 * count for count in session.manifest.macs] if as_log else None
    own = session.manifest.thresholds if record.score == "gate" else None
    _show(Calibrated(record, result, outputs, evaluated, compare, own, networks), as_json, flops, plot)
    places = [str(path) for path in (output, fold) if path is not None]
    click.echo(f"saved in {' and '.join(places)}" if places else "not saved: -o RECORD or --fold BUNDLE does", err=True)
    return ExitStatus.ERROR if outputs.failed or evaluated.failed else ExitStatus.OK


def _check(split: Path | None, compare: str | None, fold: Path | None, reject: float | None) -> None:
    """Raises: click.UsageError for options without those that they need."""
    if reject is not None and (split is None or fold is None):
        raise click.UsageError("--reject needs a --split with images for class means, and --fold to build it in")
    if compare is not None and split is None:
        raise click.UsageError("--compare needs a --split with images for it")


def _split_and_part(split: Path | None, part: str) -> tuple[str | None, str | None]:
    """The hash of a split file and the part in use; None and None without a split."""
    from pi_dynn.files import file_sha256

    return (None, None) if split is None else (file_sha256(split), part)


def _costs(session: "Session", options: dict[str, Any], unit: str) -> "ExitCosts":
    """Cost of every exit in `unit`: counted, read from a file of measurements, or by the machine's latency model."""
    from pi_dynn.evaluate.thresholds import ExitCosts, read_exit_costs

    if unit == "macs":
        return ExitCosts([float(count) for count in session.manifest.macs], "counted")
    if options["costs"] is None and unit == "s":
        from pi_dynn.latency.latency_model import saved_latency_model

        return ExitCosts(
            saved_latency_model(session).predict_s(session.manifest.blocks), "predicted by a latency model"
        )
    if options["costs"] is None:
        raise click.UsageError("costs in mJ are measured: give --costs with a saved energy run")
    return read_exit_costs(options["costs"], unit, session.manifest.blocks, session.bundle.sha256)


def _collect(session: "Session", data: "ImageFolder", title: str, all_views: bool = False) -> "ExitOutputs":
    """All exits' outputs on `data`; a line on stderr for each file that cannot be read."""
    from pi_dynn.evaluate.outputs import collect_outputs

    with progress(title, total=len(data)) as advance:
        outputs = collect_outputs(session, data, advance, all_views=all_views)
    for error in outputs.failed:
        show_error(str(error))
    return outputs


def _rejection(
    session: "Session", outputs: "ExitOutputs", record: "CalibrationRecord", known: "ImageFolder", percent: float
) -> "Rejection":
    """When to answer "none of these": class means from `known` images, the limit from `outputs`."""
    from pi_dynn.evaluate.thresholds import rejection_of, rescored

    usual = _collect(session, known, "class means")
    rejection = rejection_of(
        usual, rescored(outputs, record), record.thresholds, session.manifest.labels, percent / 100
    )
    click.echo(
        f"rejects answers with a similarity below {rejection.limit:.3f}: of images like these {rejection.images}, "
        f"at most {percent:g} %",
        err=True,
    )
    return rejection


def _fold(
    bundle: "Bundle", record: "CalibrationRecord", path: Path, rejection: "Rejection | None"
) -> "CalibrationRecord":
    """Save the calibrated bundle; returns the record for it, whose score is the gate and whose temperatures are 1."""
    from pi_dynn.calibrate.scores import GATE
    from pi_dynn.deploy.calibrated import calibrated_bundle

    built = calibrated_bundle(
        bundle,
        thresholds=record.thresholds,
        score=record.score,
        temperatures=record.temperatures,
        rejection=rejection,
    )
    built.save(path)
    click.echo(f"{path}: the bundle, leaving by its {record.score} at these thresholds", err=True)
    return replace(record, bundle=built.sha256, score=GATE, temperatures=[1.0] * len(record.exits))


def _static(texts: Sequence[str], choice: SessionChoice, data: "ImageFolder") -> "list[StaticNetwork]":
    """Networks without exits: bundles at their own full depth on `data`, or figures as they are given."""
    from pi_dynn.calibrate.records import StaticNetwork

    networks = []
    for text in texts:
        figures = re.fullmatch(r"(.+)=([\d.]+)@([\d.]+)", text)
        if figures and not Path(text).exists():
            networks.append(StaticNetwork(figures[1], float(figures[2]) / 100, float(figures[3]) * 1e6))
            continue
        session = replace(choice, bundle=Path(text)).open()
        outputs = _collect(session, data, Path(text).name)
        accuracy = float(outputs.right[-1].mean())
        networks.append(StaticNetwork(session.manifest.model, accuracy, float(session.manifest.macs[-1])))
    return networks


@dataclass(frozen=True)
class Calibrated:
    """A calibration and the images it is evaluated on: its own, or those of the part `compared`.

    `own` are the thresholds of the bundle, None if the record has another score.
    """

    record: "CalibrationRecord"
    choice: "Choice"
    outputs: "ExitOutputs"
    evaluated: "ExitOutputs"
    compared: str | None
    own: list[float] | None
    static: "list[StaticNetwork]"


def _show(shown: Calibrated, as_json: bool, flops: list[float] | None, plot: Path | None) -> None:
    """Print the record, the comparison if asked for, and save the plots if asked for; a log where `flops` are given."""
    from pi_dynn.calibrate.compare import compare_rules
    from pi_dynn.evaluate import text
    from pi_dynn.evaluate.thresholds import exit_outcomes, reliability

    record, choice, evaluated = shown.record, shown.choice, shown.evaluated
    results = []
    if shown.compared is not None or plot is not None:
        finding, reporting = (exit_outcomes(one, record.score, record.costs) for one in (shown.outputs, evaluated))
        results = compare_rules(finding, reporting, record.cost_unit, own=shown.own)
    rows = reliability(evaluated, record)
    if as_json:
        click.echo(json.dumps(record.to_dict()))
        for result in results if shown.compared is not None else ():
            click.echo(json.dumps({"comparison": result.to_dict()}))
    elif flops is not None:
        click.echo(text.sweep_log(choice.points, record.exits, flops, len(shown.outputs.labels)))
    else:
        if len(choice.points) > 1 and choice.points[0].settings:
            click.echo(text.points_table(choice.points, record.exits, record.cost_unit) + "\n")
        show(text.record_text(record, choice.point, choice.before) + "\n")
        click.echo(text.reliability_table(rows))
        if shown.compared is not None:
            click.echo(
                f"\non part {shown.compared}, {counted(len(evaluated.labels), 'image')} that no rule was chosen on:"
            )
            show(text.comparison_text(results, len(evaluated.labels), record.images, str(record.part)))
    for note in text.empty_exit_notes(record):
        show(f"Note: {note}", err=True)
    if plot is not None:
        _plot(plot, shown, results, rows)


def _plot(folder: Path, shown: Calibrated, results: "list[RuleResult]", rows: "list[ExitReliability]") -> None:
    """Save the plots; a note on stderr says which images they are of."""
    from pi_dynn.calibrate.outcomes import operating_point
    from pi_dynn.evaluate import plots
    from pi_dynn.evaluate.thresholds import exit_outcomes
    from pi_dynn.figures import save_figure

    record = shown.record
    outcomes = exit_outcomes(shown.evaluated, record.score, record.costs)
    point = operating_point(outcomes, record.thresholds)
    unit = record.cost_unit
    figures = {
        "trade-off": plots.trade_off_figure(
            results, point, unit, shown.static if unit == "macs" else (), outcomes.photographs
        ),
        "exits": plots.leaving_figure(record, point),
        "reliability": plots.reliability_figure(rows),
        "sweep": plots.sweep_figure(shown.choice.points, unit),
    }
    for name, figure in figures.items():
        save_figure(figure, folder, name)
    click.echo(f"plots saved in {folder}: {', '.join(figures)} (svg, png)", err=True)

"""`pi-dynn evaluate`."""

import json
from pathlib import Path

import click

from pi_dynn.cli.calibrate_options import SCORE_NAMES
from pi_dynn.cli.calibration_options import calibration_option, record_for
from pi_dynn.cli.cluster_options import answering_session, check_cluster, cluster_options
from pi_dynn.cli.data_options import open_part, part_option, split_option
from pi_dynn.cli.options import chosen_thresholds, exit_options, json_option, session_options
from pi_dynn.cli.progress import progress
from pi_dynn.cli.robustness_options import (
    evaluate_conditions,
    hard_conditions,
    robustness_options,
    severities_given,
)
from pi_dynn.cli.status import ExitStatus


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path), metavar="DATASET_DIR")
@exit_options
@calibration_option
@split_option
@part_option("test")
@click.option("--rules", is_flag=True, help="Also compare all rules at equal cost, chosen on another part...")
@click.option("--choose-on", default="calibrate", show_default=True, metavar="PART", help="... namely this one.")
@click.option("--all-views", is_flag=True, help="... in the eight turned and flipped views of its images.")
@click.option("--score", type=click.Choice(SCORE_NAMES), default="gate", show_default=True, help="... by this score.")
@robustness_options
@cluster_options
@json_option
@session_options
def command(
    dataset,
    threshold,
    thresholds,
    no_exit,
    calibration,
    split,
    part,
    cluster,
    ship,
    as_json,
    bundle,
    engine,
    threads,
    **asked,
) -> int:
    """Measure accuracy, exits and cost on a folder that holds one folder of images per class.

    \b
    Examples:
      pi-dynn evaluate datasets/ucm
      pi-dynn evaluate datasets/ucm --split calibration/ucm_split.json --rules
      pi-dynn evaluate datasets/ucm --corrupt noise,blur --severity 1,3,5
      pi-dynn evaluate imagenet-r --layout imagenet-r --bundle recnext_s.pt --wnids wnids.txt
      pi-dynn evaluate datasets/ucm --cluster tcp://scheduler:8786 --ship
    """
    limits = chosen_thresholds(threshold, thresholds, no_exit)
    if calibration is not None and limits is not None:
        raise click.UsageError("--calibration brings thresholds of its own: leave the others out")
    levels = _check(asked, split)
    check_cluster(cluster, ship, corrupt=asked["corrupt"], layout=asked["layout"])
    data = None if asked["layout"] else open_part(dataset, split, part)
    others = open_part(dataset, split, asked["choose_on"]) if asked["rules"] else None
    with answering_session(cluster, ship, bundle, engine, threads) as session:
        record = None if calibration is None else record_for(session, calibration)
        resolved = session.resolve_thresholds(limits if record is None else record.thresholds)
        if asked["layout"] or asked["corrupt"]:
            return _robustness(session, dataset, data, levels, resolved, record, asked, as_json)
        return _evaluate(session, data, others, resolved, record, asked, as_json)


def _evaluate(session, data, others, thresholds, record, asked: dict, as_json: bool) -> int:
    """Evaluate on images as they are; compare rules found on `others` if there are any."""
    from pi_dynn.jobs.calibrate import rescored
    from pi_dynn.jobs.evaluate import evaluate
    from pi_dynn.report.evaluate import evaluation_text

    outputs = _collect(session, data, "evaluate")
    judged = outputs if record is None else rescored(outputs, record)
    result = evaluate(session, data, judged, thresholds)
    click.echo(json.dumps(result.to_dict()) if as_json else evaluation_text(result))
    if others is not None:
        chosen_on = _collect(session, others, f"choose on {asked['choose_on']}", all_views=asked["all_views"])
        _compare(session, chosen_on, outputs, asked, as_json)
    return ExitStatus.ERROR if outputs.failed else ExitStatus.OK


def _check(asked: dict, split) -> list[int]:
    """The severities asked for. Raises: click.UsageError for options that contradict each other."""
    if asked["layout"] and (asked["corrupt"] or split is not None or asked["rules"]):
        raise click.UsageError("--layout is a data set of its own: leave --corrupt, --split and --rules out")
    if asked["corrupt"] and asked["rules"]:
        raise click.UsageError("--corrupt and --rules are two evaluations: ask for one at a time")
    if asked["rules"] and split is None:
        raise click.UsageError("--rules needs a --split: rules are chosen on one part and judged on another")
    return severities_given(asked["severity"])


def _collect(session, data, title: str, **how):
    """All exits' outputs on `data`; a line on stderr for each file that cannot be read."""
    from pi_dynn.jobs.evaluate import collect_outputs

    with progress(title, total=len(data)) as advance:
        outputs = collect_outputs(session, data, advance, **how)
    for error in outputs.failed:
        click.echo(f"pi-dynn: error: {error}", err=True)
    return outputs


def _compare(session, chosen_on, seen, asked: dict, as_json: bool) -> None:
    """Print the rules at equal cost."""
    from pi_dynn.calibrate.compare import compare_rules
    from pi_dynn.jobs.calibrate import exit_outcomes
    from pi_dynn.report.calibrate import comparison_text

    macs, score = [float(count) for count in session.manifest.macs], asked["score"]
    finding, reporting = (exit_outcomes(one, score, macs) for one in (chosen_on, seen))
    own = session.manifest.thresholds if score == "gate" else None
    results = compare_rules(finding, reporting, "macs", own=own)
    if as_json:
        for result in results:
            click.echo(json.dumps({"comparison": result.to_dict()}))
    else:
        click.echo("\n" + comparison_text(results, reporting.images, finding.photographs, asked["choose_on"]))


def _robustness(session, dataset, data, levels, thresholds, record, asked: dict, as_json: bool) -> int:
    """Evaluate on corrupted or hard images."""
    from pi_dynn.data.corruptions import corruptions_named
    from pi_dynn.jobs.robustness import corrupted_conditions
    from pi_dynn.report.robustness import robustness_text

    if asked["layout"]:
        conditions = hard_conditions(session, dataset, asked["layout"], asked["wnids"], asked["partial"])
    else:
        names = corruptions_named(asked["corrupt"].split(","))
        conditions = list(corrupted_conditions(data, names, levels))

    def collect(condition):
        corruption, severity, images, alter = condition
        title = f"{corruption or 'as they are'} {severity or ''}".strip()
        return _collect(session, images, title, alter=alter, only_present=asked["layout"] is not None)

    result = evaluate_conditions(session, conditions, thresholds, record, dataset, asked["layout"], collect)
    click.echo(json.dumps(result.to_dict()) if as_json else robustness_text(result))
    return ExitStatus.ERROR if any(one.failed for one in result.conditions) else ExitStatus.OK

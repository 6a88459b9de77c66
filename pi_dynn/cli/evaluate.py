"""`pi-dynn evaluate`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from pi_dynn.cli.calibration_options import calibration_option, record_for
from pi_dynn.cli.cluster_options import answering_session, check_cluster, cluster_options
from pi_dynn.cli.options import (
    WORDS,
    CommaList,
    SessionChoice,
    check_form,
    exit_options,
    in_group,
    json_option,
    log_option,
    part_option,
    session_options,
    split_option,
)
from pi_dynn.cli.printing import show
from pi_dynn.cli.progress import progress
from pi_dynn.cli.rule_options import SCORE_NAMES
from pi_dynn.cli.status import ExitStatus, show_error

if TYPE_CHECKING:
    from pi_dynn.calibrate.records import CalibrationRecord
    from pi_dynn.classify.cluster import ClusterSession
    from pi_dynn.data.folders import ImageFolder
    from pi_dynn.evaluate.outputs import ExitOutputs
    from pi_dynn.evaluate.records import RobustnessResult
    from pi_dynn.evaluate.robustness import Condition
    from pi_dynn.runtime.session import Session


def severity(text: str) -> int:
    """A severity of corruption. Raises: ValueError."""
    if not 1 <= int(text) <= 5:
        raise ValueError(text)
    return int(text)


HARD_SETS = ("imagenet-c", "imagenet-a", "imagenet-r", "imagenet-sketch")

_OPTIONS = (
    click.option(
        "--corrupt",
        type=WORDS,
        metavar="NAMES",
        help="Corrupt the images: all, noise, blur, weather, digital, extra, or names; needs [robustness].",
    ),
    click.option(
        "--severity",
        "severities",
        type=CommaList(severity, "numbers of 1 to 5"),
        default="1,3,5",
        show_default=True,
        metavar="S1,S2,...",
        help="... this much, 1 to 5.",
    ),
    click.option(
        "--layout",
        metavar="NAME",
        help=f"Published set DATASET_DIR must be a copy of, e.g. ucm; or {', '.join(HARD_SETS)}.",
    ),
    click.option(
        "--wnids",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="WordNet ids of the classes, one a line. [default: the bundle's labels]",
    ),
    click.option("--partial", is_flag=True, help="Allow a part of the published set."),
)


_CLASS_OPTIONS = (
    log_option,
    click.option("--per-class", is_flag=True, help="Also show accuracy by class and the confusion matrix."),
    click.option(
        "--plot",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Save the confusion matrix there, as SVG and PNG.",
    ),
    click.option(
        "--wrong",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Sort links to the wrong pictures into DIR/<true class>/<answer>/; a new folder.",
    ),
)


def details_options(command: Callable) -> Callable:
    """--log, --per-class, --plot and --wrong; --corrupt, --severity, --layout, --wnids and --partial."""
    for option in reversed(_CLASS_OPTIONS + _OPTIONS):
        command = option(command)
    return command


def evaluate_conditions(
    session: "Session | ClusterSession",
    conditions: Sequence["Condition"],
    thresholds: list[float],
    record: "CalibrationRecord | None",
    dataset: Path,
    layout: str | None,
    collect: "Callable[[Condition], ExitOutputs]",
) -> "RobustnessResult":
    """The result over all conditions; `collect` gives the outputs of one."""
    from pi_dynn.evaluate.records import RobustnessResult
    from pi_dynn.evaluate.robustness import judge_conditions, summarise
    from pi_dynn.evaluate.thresholds import rescored

    def outputs_of(condition: "Condition") -> "ExitOutputs":
        outputs = collect(condition)
        return outputs if record is None else rescored(outputs, record)

    # Exits on record are what clean images do where a set brings none of its own.
    expected = record.exit_rates if record is not None and layout is not None else None
    results = judge_conditions(conditions, outputs_of, thresholds, session.manifest, expected)
    return RobustnessResult(
        dataset=str(dataset),
        layout=layout,
        thresholds=thresholds,
        exits=session.manifest.blocks,
        conditions=results,
        summary=summarise(results, published=layout == "imagenet-c"),
        bundle=session.bundle.sha256,
    )


def hard_conditions(
    session: "Session | ClusterSession", dataset: Path, layout: str, wnids: Path | None, partial: bool
) -> list["Condition"]:
    """Conditions of a copy of a robustness set."""
    from pi_dynn.data.robustness import open_hard_images, read_wnids, wnids_of

    labels = session.manifest.labels
    ids = wnids_of(labels) if wnids is None else read_wnids(wnids, len(labels))
    return [
        (part.corruption, part.severity, part.data, None)
        for part in open_hard_images(dataset, layout, labels, ids, partial)
    ]


@click.command(cls=cloup.Command)
@click.argument("dataset", type=click.Path(path_type=Path), metavar="DATASET_DIR")
@in_group("Images", split_option, part_option("test"))
@in_group("When to stop", exit_options, calibration_option)
@in_group(
    "Rules",
    click.option("--rules", is_flag=True, help="Also compare all rules at equal cost, chosen on another part..."),
    click.option("--choose-on", default="calibrate", show_default=True, metavar="PART", help="... namely this one."),
    click.option("--all-views", is_flag=True, help="... in the eight turned and flipped views of its images."),
    click.option(
        "--score", type=click.Choice(SCORE_NAMES), default="gate", show_default=True, help="... by this score."
    ),
)
@in_group("Details", details_options, json_option)
@in_group("Bundle and engine", cluster_options, session_options)
def command(
    dataset: Path,
    thresholds: list[float] | float | None,
    calibration: Path | None,
    split: Path | None,
    part: str,
    severities: list[int],
    cluster: str | None,
    ship: bool,
    as_json: bool,
    choice: SessionChoice,
    **asked: Any,
) -> int:
    """Measure accuracy, exits and cost on a folder that holds one folder of images per class.

    \b
    Examples:
      pi-dynn evaluate datasets/ucm
      pi-dynn evaluate datasets/ucm --per-class --plot plots --wrong wrong
      pi-dynn evaluate datasets/ucm --split calibration/ucm_split.json --rules
      pi-dynn evaluate datasets/ucm --corrupt noise,blur --severity 1,3,5
      pi-dynn evaluate imagenet-r --layout imagenet-r --bundle recnext_s.pt --wnids wnids.txt
      pi-dynn evaluate datasets/ucm --cluster tcp://scheduler:8786 --ship
    """
    from pi_dynn.data.corruptions import check_corruptions, corruptions_named
    from pi_dynn.data.layouts import open_data

    if calibration is not None and thresholds is not None:
        raise click.UsageError("--calibration brings thresholds of its own: leave the others out")
    check_form(asked["as_log"], as_json)
    hard = asked["layout"] if asked["layout"] in HARD_SETS else None
    _check(asked, split, dataset, hard)
    check_cluster(cluster, ship, corrupt=asked["corrupt"], layout=hard)
    if asked["corrupt"]:  # before anything is loaded
        asked["corrupt"] = corruptions_named(asked["corrupt"])
        check_corruptions()
    opened = None if hard else open_data(dataset, asked["layout"], asked["partial"])
    data = None if opened is None else opened.part(part, split)
    others = opened.part(asked["choose_on"], split) if opened is not None and asked["rules"] else None
    asked["layout"] = hard
    with answering_session(choice, cluster, ship) as session:
        record = None if calibration is None else record_for(session, calibration)
        resolved = session.resolve_thresholds(thresholds if record is None else record.thresholds)
        if data is None or asked["corrupt"]:
            return _robustness(session, dataset, data, sorted(set(severities)), resolved, record, asked, as_json)
        return _evaluate(session, data, others, resolved, record, asked, as_json)


def _evaluate(
    session: "Session | ClusterSession",
    data: "ImageFolder",
    others: "ImageFolder | None",
    thresholds: list[float],
    record: "CalibrationRecord | None",
    asked: dict[str, Any],
    as_json: bool,
) -> int:
    """Evaluate on images as they are; compare rules found on `others` if there are any."""
    from pi_dynn.evaluate.outputs import evaluate
    from pi_dynn.evaluate.text import evaluation_log, evaluation_text
    from pi_dynn.evaluate.thresholds import rescored

    outputs = _collect(session, data, "evaluate")
    judged = outputs if record is None else rescored(outputs, record)
    result = evaluate(session, data, judged, thresholds)
    text = evaluation_log if asked["as_log"] else evaluation_text
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    else:
        show(text(result))
    if asked["per_class"] or asked["plot"] or asked["wrong"]:
        _show_classes(session, data, judged, thresholds, asked, as_json)
    if others is not None:
        chosen_on = _collect(session, others, f"choose on {asked['choose_on']}", all_views=asked["all_views"])
        _compare(session, chosen_on, outputs, asked, as_json)
    return ExitStatus.ERROR if outputs.failed else ExitStatus.OK


def _show_classes(
    session: "Session | ClusterSession",
    data: "ImageFolder",
    outputs: "ExitOutputs",
    thresholds: list[float],
    asked: dict[str, Any],
    as_json: bool,
) -> None:
    """Print, draw and sort what --per-class, --plot and --wrong ask for; a line on stderr for what was written."""
    from pi_dynn.evaluate.classes import class_result, sort_wrong
    from pi_dynn.evaluate.text import class_text

    result = class_result(data, outputs, thresholds, session.manifest, session.bundle.sha256)
    if asked["per_class"]:
        click.echo(json.dumps({"classes": result.to_dict()}) if as_json else "\n" + class_text(result))
    if asked["wrong"]:
        copies = sort_wrong(result.wrong, asked["wrong"], data)
        how = f"links to {len(result.wrong)}" if not copies else f"{len(result.wrong)}, {copies} of them copied,"
        done = f"{how} wrong pictures sorted into {asked['wrong']}" if result.wrong else "no picture is answered wrong"
        click.echo(done, err=True)
    if asked["plot"]:
        from pi_dynn.evaluate.plots import confusion_figure
        from pi_dynn.figures import save_figure

        save_figure(confusion_figure(result), asked["plot"], "confusion")
        click.echo(f"plots saved in {asked['plot']}: confusion (svg, png)", err=True)


def _check(asked: dict[str, Any], split: Path | None, dataset: Path, hard: str | None) -> None:
    """Raises: click.UsageError for options that contradict each other, InputError for a folder of no use."""
    if (hard or asked["corrupt"]) and (asked["as_log"] or asked["per_class"] or asked["plot"] or asked["wrong"]):
        raise click.UsageError("--log, --per-class, --plot and --wrong are for images as they are: leave them out")
    if asked["wrong"]:
        from pi_dynn.evaluate.classes import check_wrong_folder

        check_wrong_folder(asked["wrong"], dataset)
    if hard and (asked["corrupt"] or split is not None or asked["rules"]):
        raise click.UsageError(f"{hard} is a data set of its own: leave --corrupt, --split and --rules out")
    if asked["corrupt"] and asked["rules"]:
        raise click.UsageError("--corrupt and --rules are two evaluations: ask for one at a time")
    if asked["rules"] and split is None:
        raise click.UsageError("--rules needs a --split: rules are chosen on one part and judged on another")


def _collect(session: "Session | ClusterSession", data: "ImageFolder", title: str, **how: Any) -> "ExitOutputs":
    """All exits' outputs on `data`; a line on stderr for each file that cannot be read."""
    from pi_dynn.evaluate.outputs import collect_outputs

    with progress(title, total=len(data)) as advance:
        outputs = collect_outputs(session, data, advance, **how)
    for error in outputs.failed:
        show_error(str(error))
    return outputs


def _compare(
    session: "Session | ClusterSession",
    chosen_on: "ExitOutputs",
    seen: "ExitOutputs",
    asked: dict[str, Any],
    as_json: bool,
) -> None:
    """Print the rules at equal cost."""
    from pi_dynn.calibrate.compare import compare_rules
    from pi_dynn.evaluate.text import comparison_text
    from pi_dynn.evaluate.thresholds import exit_outcomes

    macs, score = [float(count) for count in session.manifest.macs], asked["score"]
    finding, reporting = (exit_outcomes(one, score, macs) for one in (chosen_on, seen))
    own = session.manifest.thresholds if score == "gate" else None
    results = compare_rules(finding, reporting, "macs", own=own)
    if as_json:
        for result in results:
            click.echo(json.dumps({"comparison": result.to_dict()}))
    else:
        show("\n" + comparison_text(results, reporting.images, finding.photographs, asked["choose_on"]))


def _robustness(
    session: "Session | ClusterSession",
    dataset: Path,
    data: "ImageFolder | None",
    levels: list[int],
    thresholds: list[float],
    record: "CalibrationRecord | None",
    asked: dict[str, Any],
    as_json: bool,
) -> int:
    """Evaluate on corrupted or hard images."""
    from pi_dynn.evaluate.robustness import corrupted_conditions
    from pi_dynn.evaluate.text import robustness_text

    if data is None:
        conditions = hard_conditions(session, dataset, asked["layout"], asked["wnids"], asked["partial"])
    else:
        conditions = list(corrupted_conditions(data, asked["corrupt"], levels))

    def collect(condition: "Condition") -> "ExitOutputs":
        corruption, severity, images, alter = condition
        title = f"{corruption or 'as they are'} {severity or ''}".strip()
        return _collect(session, images, title, alter=alter, only_present=asked["layout"] is not None)

    result = evaluate_conditions(session, conditions, thresholds, record, dataset, asked["layout"], collect)
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    else:
        show(robustness_text(result))
    return ExitStatus.ERROR if any(one.failed for one in result.conditions) else ExitStatus.OK

"""`pi-dynn evaluate`."""

import json
from pathlib import Path

import click

from pi_dynn.cli.calibration_options import calibration_option, record_for
from pi_dynn.cli.data_options import open_part, part_option, split_option
from pi_dynn.cli.options import chosen_thresholds, exit_options, json_option, open_session, session_options
from pi_dynn.cli.progress import progress
from pi_dynn.cli.status import ExitStatus


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path), metavar="DATASET_DIR")
@exit_options
@calibration_option
@split_option
@part_option("test")
@json_option
@session_options
def command(dataset, threshold, thresholds, no_exit, calibration, split, part, as_json, bundle, engine, threads) -> int:
    """Measure accuracy, exits and cost on a folder that holds one folder of images per class.

    \b
    Example:
      pi-dynn evaluate datasets/ucm
    """
    limits = chosen_thresholds(threshold, thresholds, no_exit)
    if calibration is not None and limits is not None:
        raise click.UsageError("--calibration brings thresholds of its own: leave the others out")
    data = open_part(dataset, split, part)
    session = open_session(bundle, engine, threads)

    from pi_dynn.jobs.calibrate import rescored
    from pi_dynn.jobs.evaluate import collect_outputs, evaluate
    from pi_dynn.report.evaluate import evaluation_text

    record = None if calibration is None else record_for(session, calibration)
    resolved = session.resolve_thresholds(limits if record is None else record.thresholds)
    with progress("evaluate", total=len(data)) as advance:
        outputs = collect_outputs(session, data, advance)
    for error in outputs.failed:
        click.echo(f"pi-dynn: error: {error}", err=True)
    if record is not None:
        outputs = rescored(outputs, record)
    result = evaluate(session, data, outputs, resolved)
    click.echo(json.dumps(result.to_dict()) if as_json else evaluation_text(result))
    return ExitStatus.ERROR if outputs.failed else ExitStatus.OK

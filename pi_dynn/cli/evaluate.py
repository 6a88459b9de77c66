"""`pi-dynn evaluate`."""

import json
from pathlib import Path

import click

from pi_dynn.cli.options import chosen_thresholds, exit_options, json_option, open_session, session_options
from pi_dynn.cli.progress import progress
from pi_dynn.cli.status import ExitStatus


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path), metavar="DATASET_DIR")
@exit_options
@click.option("--split", type=click.Path(path_type=Path), metavar="FILE", help="Use only a part of a written split...")
@click.option("--part", default="test", show_default=True, help="... namely this one.")
@json_option
@session_options
def command(dataset, threshold, thresholds, no_exit, split, part, as_json, bundle, engine, threads) -> int:
    """Measure accuracy, exits and cost on a folder that holds one folder of images per class.

    \b
    Example:
      pi-dynn evaluate datasets/ucm
    """
    limits = chosen_thresholds(threshold, thresholds, no_exit)

    from pi_dynn.data.folders import load_split, open_image_folder
    from pi_dynn.errors import DatasetError

    data = open_image_folder(dataset)
    if split is not None:
        parts = load_split(split, data)
        if part not in parts:
            raise DatasetError(f"{split}: has no part {part!r}, only {', '.join(parts)}")
        data = parts[part]
    session = open_session(bundle, engine, threads)

    from pi_dynn.jobs.evaluate import collect_outputs, evaluate
    from pi_dynn.report.evaluate import evaluation_text

    resolved = session.resolve_thresholds(limits)
    with progress("evaluate", total=len(data)) as advance:
        outputs = collect_outputs(session, data, advance)
    for error in outputs.failed:
        click.echo(f"pi-dynn: error: {error}", err=True)
    result = evaluate(session, data, outputs, resolved)
    click.echo(json.dumps(result.to_dict()) if as_json else evaluation_text(result))
    return ExitStatus.ERROR if outputs.failed else ExitStatus.OK

"""`pi-dynn report`."""

import json
from pathlib import Path

import click

from pi_dynn.cli.options import json_option
from pi_dynn.cli.status import ExitStatus


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN.json ...")
@click.option("--exits", is_flag=True, help="Also print the table of exits of every run.")
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@json_option
def command(runs, exits, markdown, as_json) -> int:
    """Make the published table from saved runs; every figure is worked out anew from the raw trace.

    Runs of one board and data set are compared with the first of them, so name the baseline first.

    \b
    Example:
      pi-dynn energy --bundle full.pt --save base.json
      pi-dynn energy --save early.json
      pi-dynn report base.json early.json
    """
    from pi_dynn.jobs.energy_compare import compare_results
    from pi_dynn.jobs.energy_file import replay_run
    from pi_dynn.report.energy import board_table, energy_notes, exit_table

    results = compare_results([result for path in runs for result in replay_run(path)[1]])
    if as_json:
        for result in results:
            click.echo(json.dumps(result.to_dict()))
    else:
        tables = [board_table(results, markdown)]
        tables += [exit_table(result, markdown) for result in results if exits and result.exits]
        click.echo("\n\n".join(tables))
        for result in results:
            for reason in result.invalid_reasons:
                click.echo(f"INVALID {result.name}: {reason}")
    for note in energy_notes(results):
        click.echo(f"Note: {note}", err=True)
    return ExitStatus.OK if all(result.valid for result in results) else ExitStatus.MEASUREMENT_INVALID

"""`pi-dynn report`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pi_dynn.cli.options import json_option
from pi_dynn.cli.printing import show
from pi_dynn.cli.status import ExitStatus

if TYPE_CHECKING:
    from pi_dynn.energy.records import EnergyDifference, EnergyResult
    from pi_dynn.report.runs import Grid
    from pi_dynn.report.saved import SavedRuns, TestTiming

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN.json ...")
@click.option("--exits", is_flag=True, help="Also print the table of exits of every run.")
@click.option("--across", is_flag=True, help="Compare with the first run whatever its board, data set and scope.")
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@click.option("--csv", "csv_path", type=PATH, metavar="FILE", help="Write the figures there, a row each, in SI units.")
@click.option("--html", "html_path", type=PATH, metavar="FILE", help="Write one page with tables and plots there.")
@click.option("--title", default="pi_dynn report", show_default=True, help="Of the page.")
@json_option
def command(
    runs: tuple[Path, ...],
    exits: bool,
    across: bool,
    markdown: bool,
    csv_path: Path | None,
    html_path: Path | None,
    title: str,
    as_json: bool,
) -> int:
    """Make tables, and a page with plots, from what other commands saved.

    RUN.json is what `energy --save` or pytest-benchmark wrote, or the output of --json of `classify`, `evaluate`,
    `benchmark` or `profile`; also a folder of `train`, or a published log that has test_acc1 of every epoch. Every
    figure of an energy run is computed again from its raw trace. Runs of one board and data set are compared with the
    first of them, so name the baseline first; runs that metered something else are not compared unless --across says
    so.

    \b
    Examples:
      pi-dynn energy --bundle full.pt --save base.json
      pi-dynn energy --save early.json
      pi-dynn report base.json early.json --html report.html
    """
    from dataclasses import replace

    from pi_dynn.energy.compare import compare_results, energy_differences
    from pi_dynn.energy.text import energy_notes
    from pi_dynn.report.runs import json_objects, tables_of, titled
    from pi_dynn.report.saved import read_saved

    saved = read_saved(runs)
    saved = replace(saved, energy=compare_results(saved.energy, across))
    differences = energy_differences(saved.energy, across)
    notes = energy_notes(saved.energy)
    energies: list[EnergyResult | TestTiming] = [*saved.energy, *saved.tests]
    if csv_path is not None:  # before anything is printed, because a reader may end the program by closing the pipe
        _write_csv(csv_path, saved, differences)
    if html_path is not None:
        _write_page(html_path, title, runs, saved, tables_of(saved, differences, True, True), notes)
    if as_json:
        for line in json_objects(saved, differences):
            click.echo(json.dumps(line))
    else:
        click.echo(titled(tables_of(saved, differences, markdown, exits), markdown))
        for result in energies:
            for reason in result.invalid_reasons:
                click.echo(f"INVALID {result.name}: {reason}")
    for note in notes:
        show(f"Note: {note}", err=True)
    return ExitStatus.OK if all(result.valid for result in energies) else ExitStatus.MEASUREMENT_INVALID


def _write_csv(path: Path, saved: "SavedRuns", differences: Sequence["EnergyDifference"]) -> None:
    import csv
    from io import StringIO

    from pi_dynn.files import write_text
    from pi_dynn.report.runs import csv_rows

    rows = list(csv_rows(saved, differences))
    stream = StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())


def _write_page(
    path: Path,
    title: str,
    files: Sequence[Path],
    saved: "SavedRuns",
    tables: "Sequence[Grid]",
    notes: Sequence[str],
) -> None:
    from pi_dynn import __version__
    from pi_dynn.files import write_text
    from pi_dynn.report.html import report_page

    write_text(path, report_page(title, [file.name for file in files], saved, tables, notes, __version__))
    click.echo(f"written to {path}", err=True)

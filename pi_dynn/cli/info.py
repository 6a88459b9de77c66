"""`pi-dynn info`."""

import json
from pathlib import Path

import click

from pi_dynn.cli.calibration_options import DEFAULT_FOLDER
from pi_dynn.cli.options import json_option


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, exists=True),
    metavar="PLACE",
    help="Record, or folder of records, to look into. [default: the folder calibration, and that of the bundle]",
)
@json_option
def command(bundle: Path | None, calibration: Path | None, as_json: bool) -> None:
    """Show what a bundle is: classes, network, exits and their costs, precision, training, records, hash.

    Without BUNDLE it is the embedded one. The file is read and checked, and nothing in it is run.

    \b
    Examples:
      pi-dynn info
      pi-dynn info mine.pt --json
    """
    from pi_dynn.runtime.info import bundle_info
    from pi_dynn.runtime.text import info_text

    places = [DEFAULT_FOLDER, *([] if bundle is None else [bundle.parent])] if calibration is None else [calibration]
    info = bundle_info(bundle, places, lambda text: click.echo(f"Note: {text}", err=True))
    click.echo(json.dumps(info.to_dict()) if as_json else info_text(info))

"""`pi-dynn models`."""

import json

import click

from pi_dynn.cli.options import json_option


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List the networks that can be built, with their size at 1,000 classes.

    \b
    Example:
      pi-dynn models
    """
    from pi_dynn.jobs.describe import describe_model
    from pi_dynn.models import list_models
    from pi_dynn.report.text import table

    entries = [describe_model(name) for name in list_models()]
    if as_json:
        for entry in entries:
            click.echo(json.dumps(entry))
        return
    rows = [(e["name"], f"{e['image_size']} px", f"{e['parameters']:,}", f"{e['macs'] / 1e6:,.0f} M") for e in entries]
    click.echo(table(("name", "images", "parameters", "multiply-adds"), rows))

"""`pi-dynn models`."""

import fnmatch
import json
from contextlib import suppress

import click

from pi_dynn.cli.options import json_option


@click.command()
@click.argument("pattern", default="*")
@json_option
def command(pattern: str, as_json: bool) -> None:
    """List the networks that can be built, with their size at 1,000 classes; PATTERN chooses some by name.

    \b
    Example:
      pi-dynn models
      pi-dynn models 'recnext*'
    """
    from pi_dynn.errors import UnknownModel
    from pi_dynn.models import list_models
    from pi_dynn.models.macs import describe_model
    from pi_dynn.models.registry import canonical_name
    from pi_dynn.text import table

    names = fnmatch.filter(list_models(), pattern)
    with suppress(UnknownModel):  # an alias, or a network of torchvision's
        names = names or [canonical_name(pattern)]
    if not names:
        raise UnknownModel(f"no network is called like {pattern!r}: choose from {', '.join(list_models())}")
    entries = [describe_model(name) for name in names]
    if as_json:
        for entry in entries:
            click.echo(json.dumps(entry.to_dict()))
        return
    rows = [(e.name, f"{e.image_size} px", f"{e.parameters:,}", f"{e.macs / 1e6:,.0f} M") for e in entries]
    click.echo(table(("name", "images", "parameters", "multiply-adds"), rows))

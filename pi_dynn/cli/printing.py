"""Text for people on the terminal."""

import sys

import click

from pi_dynn.text import folded


def show(text: str, err: bool = False) -> None:
    """Print text on stdout, or on stderr; on a terminal, lines that are too long are broken between words."""
    click.echo(folded(text) if (sys.stderr if err else sys.stdout).isatty() else text, err=err)

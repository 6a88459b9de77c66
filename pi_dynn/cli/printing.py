"""Text for people on the terminal."""

import os
import stat
import sys

import click

from pi_dynn.text import folded


def show(text: str, err: bool = False) -> None:
    """Print text on stdout, or on stderr; on a terminal, lines that are too long are broken between words."""
    click.echo(folded(text) if (sys.stderr if err else sys.stdout).isatty() else text, err=err)


def is_piped() -> bool:
    """Whether another program reads stdout, which may print it on the same terminal."""
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):  # no file at all
        return False


def discard_stdout() -> None:
    """Print nothing more: the reader (head, less) has seen enough. Without this, Python complains at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""Options that hand the work to a cluster, shared by several commands."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pi_dynn.cli.options import ENABLED, open_session
from pi_dynn.errors import InputError


def cluster_options(command: Callable) -> Callable:
    """--cluster and --ship."""
    for option in (
        click.option("--ship", is_flag=True, help="Send the image files along, for workers that do not see them."),
        click.option("--cluster", metavar="ADDRESS", help="Let the workers of this Dask scheduler answer."),
    ):
        command = option(command)
    return command


def check_cluster(cluster: str | None, ship: bool, **left_here: object) -> None:
    """Raises: click.UsageError for --ship without a cluster, or options that do not reach one."""
    if ship and cluster is None:
        raise click.UsageError("--ship sends files to a cluster: give --cluster")
    for name, value in left_here.items():
        if cluster is not None and value:
            raise click.UsageError(f"--{name} works on this machine only: leave --cluster out")


@contextmanager
def answering_session(
    cluster: str | None, ship: bool, bundle: Path | None, engine: str, threads: int | None
) -> Iterator:
    """A Session here, or one that a cluster's workers stand for.

    Raises: InputError without Dask, ClusterError.
    """
    if cluster is None:
        yield open_session(bundle, engine, threads)
        return
    try:
        from pi_dynn.classify.cluster import ClusterSession, ClusterSettings
    except ImportError as error:
        raise InputError(f"--cluster needs {error.name}: install it with `pip install pi_dynn[cluster]`") from error
    from pi_dynn.runtime.bundle import load_bundle

    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is said in one line, by us
    exits = click.get_current_context().meta.get(ENABLED)
    settings = ClusterSettings(ship=ship)
    with ClusterSession(cluster, load_bundle(bundle), engine, threads, exits, settings) as session:
        yield session

"""Options that hand the work to a cluster, shared by several commands."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from pi_dynn.cli.options import SessionChoice
from pi_dynn.errors import need_extra

if TYPE_CHECKING:
    from pi_dynn.classify.cluster import ClusterSession
    from pi_dynn.runtime.session import Session


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
def answering_session(choice: SessionChoice, cluster: str | None, ship: bool) -> Iterator["Session | ClusterSession"]:
    """A Session on this machine, or one on a cluster's workers.

    Raises: InputError without Dask, ClusterError.
    """
    if cluster is None:
        yield choice.open()
        return
    with need_extra("cluster", "--cluster"):
        from pi_dynn.classify.cluster import ClusterSession, ClusterSettings

    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # pi_dynn reports errors in one line
    with ClusterSession(
        cluster,
        choice.load_bundle(),
        choice.engine,
        choice.threads,
        choice.exits,
        ClusterSettings(ship=ship),
        choice.accept_all,
    ) as session:
        yield session

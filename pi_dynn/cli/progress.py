"""Progress bars on stderr, shown only on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta


@contextmanager
def progress(description: str, total: int | None = None, enabled: bool = True) -> Iterator[Callable[[], None]]:
    """Yields a function to call after each item; a no-op unless stderr is a terminal."""
    if not enabled or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def stage_progress() -> Iterator[Callable[[str, float, float], None]]:
    """Yields a function to call with what is done next, the seconds done and the seconds in all.

    The bar is drawn at these calls only, because a bar that redraws itself would use energy during a measurement.
    """
    if not sys.stderr.isatty():
        yield lambda what, done_s, total_s: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]} left"))
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=None, left="?")

        def show(what: str, done_s: float, total_s: float) -> None:
            left = str(timedelta(seconds=max(0, round(total_s - done_s))))
            bar.update(task, description=what, completed=done_s, total=total_s, left=left, refresh=True)

        yield show

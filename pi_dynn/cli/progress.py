"""Progress bars on stderr, shown only on a terminal."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn


class _AboveBar(io.TextIOBase):
    """A stream in place of a terminal's, whose lines appear above the bar instead of in the middle of it.

    Rich's own redirection has no encoding, so that click writes past it.
    """

    encoding, errors = "utf-8", "backslashreplace"

    def __init__(self, console: "Console") -> None:
        self._console, self._begun = console, ""

    def write(self, text: str) -> int:
        """Print the lines that are whole; the terminal wraps long ones, so that they are copied whole."""
        from rich.text import Text

        lines, end, self._begun = (self._begun + text).rpartition("\n")
        if end:
            self._console.print(Text.from_ansi(lines), soft_wrap=True)
        return len(text)

    def isatty(self) -> bool:
        """Colours may be used."""
        return True


@contextmanager
def progress(description: str, total: int | None = None, enabled: bool = True) -> Iterator[Callable[[], None]]:
    """Yields a function to call after each item; a no-op unless stderr is a terminal."""
    if not enabled or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
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
    with _bar(*columns) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def _bar(*columns: "ProgressColumn", auto_refresh: bool = True) -> Iterator["Progress"]:
    """A bar that goes when the body ends; what is printed on terminals in the body appears above it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=sys.stderr)  # by name: it would follow a redirected stderr
    with ExitStack() as stack:
        bar = Progress(
            *columns,
            console=console,
            transient=True,
            auto_refresh=auto_refresh,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        stack.enter_context(bar)
        if sys.stdout.isatty():
            stack.enter_context(redirect_stdout(_AboveBar(console)))
        stack.enter_context(redirect_stderr(_AboveBar(console)))
        yield bar


@contextmanager
def stage_progress() -> Iterator[Callable[[str, float, float], None]]:
    """Yields a function to call with what is done next, the seconds done and the seconds in all.

    The bar is drawn at these calls only, because a bar that redraws itself would use energy during a measurement.
    """
    if not sys.stderr.isatty():
        yield lambda what, done_s, total_s: None
        return
    from rich.progress import BarColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]} left"))
    with _bar(*columns, auto_refresh=False) as bar:
        task = bar.add_task("", total=None, left="?")

        def show(what: str, done_s: float, total_s: float) -> None:
            left = str(timedelta(seconds=max(0, round(total_s - done_s))))
            bar.update(task, description=what, completed=done_s, total=total_s, left=left, refresh=True)

        yield show

"""Numbers and tables as people read them."""

from collections.abc import Iterable, Sequence
from io import StringIO


def milliseconds(seconds: float) -> str:
    """A duration with three significant digits, in milliseconds."""
    return f"{three_digits(seconds * 1e3)} ms"


def three_digits(value: float) -> str:
    """At least three significant digits, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in 0..1 as a percentage; a dash for None."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def mega(count: float) -> str:
    """Multiply-adds in millions."""
    return f"{count / 1e6:.1f} M"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A plain aligned table; the first `left` columns are flush left, the others right."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 0))
    for i, header in enumerate(headers):
        grid.add_column(header, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    stream = StringIO()
    Console(file=stream, width=240, color_system=None, highlight=False, markup=False).print(grid)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """The same as GitHub-flavoured Markdown."""
    lines = [headers, ["---" if i < left else "---:" for i in range(len(headers))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

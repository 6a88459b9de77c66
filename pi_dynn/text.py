"""Formatting of numbers and tables for people."""

import math
from collections.abc import Iterable, Sequence
from io import StringIO


def significant(value: float, digits: int = 3) -> str:
    """A number with at least `digits` significant digits, without an exponent.

    >>> significant(0.1234), significant(12.34), significant(1234.5, 4), significant(float("inf"))
    ('0.12', '12.3', '1,234', 'inf')
    """
    if not math.isfinite(value):
        return str(value)
    whole = len(str(int(abs(value))))
    return f"{value:,.{max(0, digits - whole)}f}"


def milliseconds(seconds: float, digits: int = 3) -> str:
    """A duration in milliseconds."""
    return f"{significant(seconds * 1e3, digits)} ms"


def shown(text: str) -> str:
    r"""Text from outside for a terminal: control characters, which could move the cursor or hide a line, are escaped.

    >>> shown("beach\x1b[2K"), shown("Straße \u202e.jpg"), shown("a\udc80")
    ('beach\\x1b[2K', 'Straße \\u202e.jpg', 'a\\udc80')
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# The classes of UC Merced Land Use are written in one word.
_IN_WORDS = {
    "baseballdiamond": "baseball diamond",
    "denseresidential": "dense residential",
    "golfcourse": "golf course",
    "mediumresidential": "medium residential",
    "mobilehomepark": "mobile home park",
    "parkinglot": "parking lot",
    "sparseresidential": "sparse residential",
    "storagetanks": "storage tanks",
    "tenniscourt": "tennis court",
}


def label_words(label: str) -> str:
    """The label of a class as people write it.

    >>> label_words("denseresidential"), label_words("rail_way-station")
    ('dense residential', 'rail way station')
    """
    return _IN_WORDS.get(label) or label.replace("_", " ").replace("-", " ")


def counted(count: int, what: str) -> str:
    """So many of something.

    >>> counted(1, "thread"), counted(2, "thread")
    ('1 thread', '2 threads')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in 0..1 as a percentage; a dash for None."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def mega(count: float) -> str:
    """Multiply-adds in millions."""
    return f"{count / 1e6:.1f} M"


def cost_text(cost: float, unit: str) -> str:
    """A cost in "macs", "s" or "J" for people."""
    if unit == "macs":
        return mega(cost)
    return milliseconds(cost) if unit == "s" else f"{significant(cost * 1e3)} mJ"


def threshold_text(value: float) -> str:
    """A threshold; "disabled" for one that no score reaches."""
    return "disabled" if value > 1.0 else f"{value:.4f}"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, markdown: bool = False) -> str:
    """An aligned table, plain or as GitHub-flavoured Markdown; the first `left` columns are flush left."""
    if markdown:
        lines = [headers, ["---" if i < left else "---:" for i in range(len(headers))], *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
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

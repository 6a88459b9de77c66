"""Formatting of numbers and tables for people."""

import math
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from io import StringIO


def significant(value: float, digits: int = 3) -> str:
    """A number with at least `digits` significant digits, without an exponent and without a sign before zero.

    >>> significant(0.1234), significant(12.34), significant(1234.5, 4), significant(-1e-9), significant(float("inf"))
    ('0.12', '12.3', '1,234', '0.00', 'inf')
    """
    if not math.isfinite(value):
        return str(value)
    decimals = max(0, digits - len(str(int(abs(value)))))
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"


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

    >>> counted(1, "thread"), counted(2, "thread"), counted(1000, "class")
    ('1 thread', '2 threads', '1,000 classes')
    """
    ending = "" if count == 1 else "es" if what.endswith("s") else "s"
    return f"{count:,} {what}{ending}"


def names_like(name: str, known: Iterable[str], command: str) -> str:
    """What to do about a name that is not known: the names most like it, or the `command` that lists all.

    >>> names_like("resnet19", ["resnet18", "lsnet_t"], "pi-dynn models")
    'did you mean resnet18?'
    >>> names_like("vgg", ["resnet18", "lsnet_t"], "pi-dynn models")
    '`pi-dynn models` lists the names'
    """
    near = get_close_matches(name, list(known), cutoff=0.75)
    return f"did you mean {' or '.join(near)}?" if near else f"`{command}` lists the names"


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


_GAP = 2  # columns between those of a table
_WIDEST = 120  # columns of a line that is read; a wider terminal stays empty to the right


def columns() -> int | None:
    """The columns of the terminal that stdout is, or those that COLUMNS says; None where there is none."""
    if not (sys.stdout.isatty() or os.environ.get("COLUMNS")):
        return None
    return shutil.get_terminal_size((0, 0)).columns or None


def folded(text: str, indent: int = 2, width: int | None = None) -> str:
    """Text for a terminal: lines wider than it are broken between words and continued `indent` columns further in.

    >>> print(folded("  a line of words", width=10))
      a line
        of
        words
    """
    width = width or columns()
    if width is None:
        return text
    lines = []
    for line in text.split("\n"):
        margin = " " * (len(line) - len(line.lstrip()) + indent)
        lines += textwrap.wrap(
            line,
            min(width, _WIDEST),
            subsequent_indent=margin,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(lines)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, markdown: bool = False) -> str:
    """An aligned table, plain or as GitHub-flavoured Markdown; the first `left` columns are flush left.

    A table that is wider than the terminal is continued below with its first `left` columns again.
    """
    if markdown:
        lines = [headers, ["---" if i < left else "---:" for i in range(len(headers))], *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    from rich.cells import cell_len

    lines = [tuple(headers), *map(tuple, rows)]
    widths = [max(map(cell_len, column)) + _GAP for column in zip(*lines, strict=True)]
    room, blocks = (columns() or math.inf) + _GAP, [list(range(left))]
    for i in range(left, len(widths)):
        if sum(widths[k] for k in (*blocks[-1], i)) > room and len(blocks[-1]) > left:
            blocks.append(list(range(left)))
        blocks[-1].append(i)
    return "\n\n".join(_aligned([[line[i] for i in shown] for line in lines], left) for shown in blocks)


def _aligned(lines: Sequence[Sequence[str]], left: int) -> str:
    """A table of these lines, the first of which is the headers."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, show_header=False, padding=(0, _GAP, 0, 0))
    for i in range(len(lines[0])):
        grid.add_column(justify="left" if i < left else "right", no_wrap=True)
    for line in lines:
        grid.add_row(*line)
    stream = StringIO()
    Console(file=stream, width=10_000, color_system=None, highlight=False, markup=False).print(grid)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())

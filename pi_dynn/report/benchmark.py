"""`benchmark` in text and Markdown."""

from collections.abc import Sequence

from pi_dynn.records import LatencyRow
from pi_dynn.report.text import markdown_table, milliseconds, table

HEADERS = ("variant", "median", "95 % interval", "p90", "p99", "speed-up")


def latency_table(rows: Sequence[LatencyRow], markdown: bool = False) -> str:
    """One line per variant; the speed-up is against the first."""
    cells = [
        (
            row.name,
            milliseconds(row.median_s),
            f"{milliseconds(row.ci95_s[0])} .. {milliseconds(row.ci95_s[1])}",
            milliseconds(row.p90_s),
            milliseconds(row.p99_s),
            f"{row.speedup:.2f}x",
        )
        for row in rows
    ]
    return (markdown_table if markdown else table)(HEADERS, cells)

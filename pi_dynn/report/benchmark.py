"""`benchmark` in text and Markdown."""

from collections.abc import Sequence

from pi_dynn.records import ColdStart, LatencyRow
from pi_dynn.report.text import markdown_table, milliseconds, table

HEADERS = ("variant", "median", "95 % interval", "p90", "p99", "speed-up", "95 % interval")
COLD_HEADERS = ("cold start", "import", "read bundle", "engine, warm-up", "first answer", "in all", "peak memory")


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
            "-" if row.speedup_ci95 is None else f"{row.speedup_ci95[0]:.2f} .. {row.speedup_ci95[1]:.2f}",
        )
        for row in rows
    ]
    return (markdown_table if markdown else table)(HEADERS, cells)


def cold_start_table(starts: Sequence[ColdStart], markdown: bool = False) -> str:
    """One line per engine: how long a fresh process takes to its first answer, and the memory it needs."""
    cells = []
    for start in starts:
        parts = (start.import_s, start.read_s, start.ready_s, start.first_s)
        name, peak = f"{start.engine}, {start.threads} threads", f"{start.peak_bytes / 1e6:.0f} MB"
        cells.append((name, *(milliseconds(part) for part in (*parts, sum(parts))), peak))
    return (markdown_table if markdown else table)(COLD_HEADERS, cells)

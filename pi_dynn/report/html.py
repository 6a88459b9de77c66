"""One self-contained HTML page of saved runs, without external scripts, fonts or pictures.

Needs jinja2 and matplotlib, the extra [report].
"""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from pi_dynn.errors import need_extra
from pi_dynn.report.run_plots import figures_of
from pi_dynn.report.saved import SavedRuns

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def report_page(
    title: str,
    files: Sequence[str],
    runs: SavedRuns,
    tables: Sequence[tuple[str, str]],
    notes: Sequence[str],
    version: str,
) -> str:
    """The page, with a warning above all figures for every label other than MEASURED; `tables` are Markdown.

    Raises: InputError without the extra [report].
    """
    with need_extra("report", "an HTML report"):
        from jinja2 import Environment, PackageLoader
    environment = Environment(loader=PackageLoader("pi_dynn.report"), autoescape=True)
    return environment.get_template("report.html").render(
        title=title,
        files=files,
        tables=[(heading, rendered(text)) for heading, text in tables],
        figures=drawings(figures_of(runs)),
        warnings=warnings_of(runs),
        notes=notes,
        version=version,
    )


def rendered(markdown: str) -> str:
    """Tables and text in Markdown as HTML; HTML in them, as in the name of a run, is shown and not obeyed."""
    from markdown_it import MarkdownIt

    html: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    # What is too wide for the page can be scrolled, by the keyboard as well.
    return (
        html.replace("<pre>", '<pre tabindex="0">')
        .replace("<table>", '<div class="table" tabindex="0"><table>')
        .replace("</table>", "</table></div>")
    )


def drawings(figures: Mapping[str, "Figure"]) -> dict[str, str]:
    """Every figure as an SVG element; the salt keeps the ids of different figures apart."""
    import matplotlib

    svgs = {}
    for number, (title, figure) in enumerate(figures.items()):
        stream = StringIO()
        with matplotlib.rc_context({"svg.hashsalt": f"figure {number}", "svg.fonttype": "none"}):
            figure.savefig(stream, format="svg", metadata={"Date": None})
        text = stream.getvalue()
        svgs[title] = text[text.index("<svg") :]
    return svgs


def warnings_of(runs: SavedRuns) -> list[str]:
    """The warnings above all figures: energy that was not measured, and invalid runs."""
    unmeasured = {result.label for result in runs.energy if not result.measured}
    unmeasured |= {one.label for one in runs.tests if one.net_j is not None and one.label not in (None, "MEASURED")}
    lines = [f"{label}: energy on this page was not measured by a power meter" for label in sorted(unmeasured)]
    for result in runs.energy:
        lines += [f"INVALID {result.name}: {reason}" for reason in result.invalid_reasons]
    for one in runs.tests:
        lines += [f"INVALID {one.name}: {reason}" for reason in one.invalid_reasons]
    return lines

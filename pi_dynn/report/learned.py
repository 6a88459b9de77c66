"""The page of one `learn`: what it is good at, what it gets wrong, and what would help; nothing from elsewhere.

Needs jinja2 and matplotlib, the extra [report].
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pi_dynn.calibrate.records import OperatingPoint
from pi_dynn.data.decode import decode_image
from pi_dynn.errors import need_extra
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.figures import RED, exits_figure, new_figure, styled
from pi_dynn.report.html import drawings, rendered
from pi_dynn.text import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE_PX = 96


@dataclass(frozen=True)
class Picture:
    """An image, in a file or in memory, and the lines under it."""

    source: Path | Image.Image
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Pictures under a heading, with a sentence about them."""

    heading: str
    about: str
    pictures: list[Picture]


@dataclass(frozen=True)
class LearnedPage:
    """All the page shows; `confusion` counts test images by class (rows) and answer (columns).

    `class_table` and `evaluation_text` are Markdown.
    """

    title: str
    headline: str
    warnings: list[str]
    facts: list[tuple[str, str]]
    advice: list[str]
    classes: list[str]
    confusion: list[list[int]]
    class_table: str
    evaluation: Evaluation
    evaluation_text: str
    curve: list[OperatingPoint]
    version: str
    galleries: list[Gallery] = field(default_factory=list)


def learned_page(page: LearnedPage) -> str:
    """The page as HTML. Raises: InputError without the extra [report]."""
    with need_extra("report", "the page of learn"):
        from jinja2 import Environment, PackageLoader
    environment = Environment(loader=PackageLoader("pi_dynn.report"), autoescape=True)
    figures = {"exits": leaving_figure(page.evaluation)}
    if len(page.curve) > 1:
        figures["curve"] = curve_figure(page.curve, page.evaluation)
    return environment.get_template("learned.html").render(
        page=page,
        rows=list(zip(page.classes, page.confusion, strict=True)),
        figures=drawings(figures),
        embedded=embedded,
        rendered=rendered,
    )


def embedded(source: Path | Image.Image) -> str:
    """A small JPEG of an image as a data URL."""
    picture = decode_image(source, draft_px=2 * PICTURE_PX) if isinstance(source, Path) else source.copy()
    picture.thumbnail((PICTURE_PX, PICTURE_PX))
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def leaving_figure(evaluation: Evaluation) -> "Figure":
    """The share of test images that leaves at each exit, and how many of them are right."""
    rows = evaluation.exits
    right = [row.rate * (row.accuracy or 0.0) for row in rows]
    return exits_figure([f"block {row.block_index}" for row in rows], [row.rate for row in rows], right)


@styled
def curve_figure(curve: Sequence[OperatingPoint], evaluation: Evaluation) -> "Figure":
    """Accuracy on the test part against mean multiply-adds, at thresholds chosen on the calibrate part."""
    figure, (axes,) = new_figure()
    points = [(point.mean_cost / 1e6, 100 * point.accuracy) for point in curve]
    axes.plot(*zip(*points, strict=True), "o-", ms=3, label="other thresholds")
    axes.plot(evaluation.mean_macs / 1e6, 100 * evaluation.acc1, "k*", ms=11, label="this bundle")
    axes.plot(evaluation.full_depth_macs / 1e6, 100 * evaluation.full_depth_acc1, "s", color=RED, label="full depth")
    saved = percent(1 - evaluation.mean_macs / evaluation.full_depth_macs, 0)
    axes.set(xlabel="mean cost (million multiply-adds)", ylabel="accuracy (%)", title=f"Leaving early saves {saved}")
    figure.legend(loc="outside lower center", ncols=3)
    return figure

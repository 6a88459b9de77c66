"""The style of all figures, the parts that several share, and their files. Needs matplotlib, the extra [plots].

The fonts are readable in print at 8 cm. The colours can be told apart with any colour vision.
Source: Okabe and Ito, Color Universal Design (2008).
"""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pi_dynn.errors import need_extra
from pi_dynn.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
Drawn = TypeVar("Drawn")
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
GREY = "#666666"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY)
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
}


def styled(draw: Callable[P, Drawn]) -> Callable[P, Drawn]:
    """`draw` in the style of all figures."""

    @wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> Drawn:
        with need_extra("plots", "a plot"):
            from cycler import cycler
            from matplotlib import style
        with style.context(STYLE | {"axes.prop_cycle": cycler(color=COLOURS)}):
            return draw(*args, **kwargs)

    return in_style


def new_figure(
    columns: int = 1, width: float = 4.6, height: float = 3.1, rows: int = 1
) -> tuple["Figure", list["Axes"]]:
    """An empty figure of so many inches and its axes, drawn without a display."""
    with need_extra("plots", "a plot"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


@styled
def exits_figure(names: Sequence[str], shares: Sequence[float], right: Sequence[float] | None = None) -> "Figure":
    """The share of images (0..1) that leave at each exit, and the share that is right, if known; wrong ones hatched."""
    figure, (axes,) = new_figure(height=2.6)
    if right is None:
        bars = axes.bar(names, [100 * share for share in shares])
    else:
        wrong = [100 * (share - part) for share, part in zip(shares, right, strict=True)]
        bottom = [100 * part for part in right]
        axes.bar(names, bottom, label="right")
        bars = axes.bar(names, wrong, bottom=bottom, color=ORANGE, hatch="////", edgecolor="white", label="wrong")
        figure.legend(loc="outside lower center", ncols=2)
    axes.bar_label(bars, [f"{100 * share:.0f} %" for share in shares], padding=2)
    axes.set(ylabel="images (%)", title="Where images leave", ylim=(0, 118 * max(shares, default=1.0) or 100))
    axes.grid(axis="x", visible=False)
    return figure


def write_figure(figure: "Figure", path: Path) -> None:
    """Write a figure in the format of `path`'s suffix, atomically."""
    # Without a date the same figures give the same file.
    metadata = {"Date": None} if path.suffix == ".svg" else None
    write_atomically(path, lambda stream: figure.savefig(stream, format=path.suffix[1:], dpi=200, metadata=metadata))


def save_figure(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write a figure as SVG and PNG; returns the paths."""
    paths = [folder / f"{name}.{kind}" for kind in ("svg", "png")]
    for path in paths:
        write_figure(figure, path)
    return paths

"""Empty figures and their files. Needs matplotlib, the extra [plots]."""

from pathlib import Path
from typing import TYPE_CHECKING

from pi_dynn.errors import need_extra
from pi_dynn.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(columns: int = 1, width: float = 7.0, height: float = 4.5) -> tuple["Figure", list["Axes"]]:
    """An empty figure and its axes, drawn without a display."""
    with need_extra("plots", "a plot"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def write_figure(figure: "Figure", path: Path) -> None:
    """Write a figure in the format of `path`'s suffix, atomically."""
    # Without a date the same figures give the same file.
    metadata = {"Date": None} if path.suffix == ".svg" else None
    write_atomically(path, lambda stream: figure.savefig(stream, format=path.suffix[1:], dpi=150, metadata=metadata))


def save_figure(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write a figure as SVG and PNG; returns the paths."""
    paths = [folder / f"{name}.{kind}" for kind in ("svg", "png")]
    for path in paths:
        write_figure(figure, path)
    return paths

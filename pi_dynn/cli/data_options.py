"""Options that choose labelled images, shared by several commands."""

from collections.abc import Callable
from pathlib import Path

import click

split_option = click.option(
    "--split", type=click.Path(path_type=Path), metavar="FILE", help="Use only a part of a written split..."
)


def part_option(default: str) -> Callable:
    """--part with its default."""
    return click.option("--part", default=default, show_default=True, help="... namely this one.")


def open_part(dataset: Path, split: Path | None, part: str):
    """The images of a data set, or of one part of a written split. Raises: DatasetError."""
    from pi_dynn.data.folders import load_split, open_image_folder
    from pi_dynn.errors import DatasetError

    data = open_image_folder(dataset)
    if split is None:
        return data
    parts = load_split(split, data)
    if part not in parts:
        raise DatasetError(f"{split}: has no part {part!r}, only {', '.join(parts)}")
    return parts[part]

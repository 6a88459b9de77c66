"""Options several commands share, and the session they describe."""

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


bundle_option = click.option(
    "--bundle", type=click.Path(path_type=Path), metavar="FILE", help="Bundle to use instead of the embedded one."
)
engine_option = click.option(
    "--engine",
    type=click.Choice(["auto", "onednn", "qnnpack", "x86", "fp32", "onnxruntime"]),
    default="auto",
    show_default=True,
    help="Int8 engine; auto tests and times those of this machine. PI_DYNN_ENGINE overrides auto.",
)
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="Threads of the network. [default: 1 or all cores, the faster one]"
)
threshold_option = click.option(
    "--threshold", type=click.FloatRange(0.0), metavar="T", help="One threshold for all exits, in 0..1."
)
thresholds_option = click.option(
    "--thresholds", metavar="T1,T2,...", help="One threshold for each exit, separated by commas."
)
no_exit_option = click.option("--no-exit", is_flag=True, help="Never stop early: every image takes the full depth.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON objects, one a line, and nothing else.")
ENABLED = "pi_dynn.exits"  # where click keeps what --exits says, for open_session


def enabled_exits(context: click.Context, option: click.Option, text: str | None) -> None:
    """Remember the blocks of --exits. Raises click.BadParameter for what is no list of numbers."""
    try:
        context.meta[ENABLED] = None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected block indices separated by commas") from None


enabled_option = click.option(
    "--exits",
    metavar="B1,B2,...",
    callback=enabled_exits,
    expose_value=False,
    help="Blocks whose exits may answer. [default: all of the bundle]",
)


def session_options(command: Callable) -> Callable:
    """--bundle, --engine, --threads and --exits."""
    for option in (enabled_option, threads_option, engine_option, bundle_option):
        command = option(command)
    return command


def exit_options(command: Callable) -> Callable:
    """--threshold, --thresholds and --no-exit."""
    for option in (no_exit_option, thresholds_option, threshold_option):
        command = option(command)
    return command


def chosen_thresholds(threshold: float | None, thresholds: str | None, no_exit: bool) -> list[float] | float | None:
    """What the three exit options together say; None leaves the choice to the bundle.

    Raises: click.UsageError if more than one is given or a value is no number.
    """
    if sum((threshold is not None, thresholds is not None, no_exit)) > 1:
        raise click.UsageError("give only one of --threshold, --thresholds and --no-exit")
    if no_exit:
        return 2.0  # no score reaches it
    if thresholds is None:
        return threshold
    try:
        return [float(value) for value in thresholds.split(",")]
    except ValueError:
        raise click.UsageError(f"--thresholds {thresholds!r}: expected numbers separated by commas") from None


def open_session(bundle: Path | None, engine: str, threads: int | None):
    """The Session the options describe. torch is imported here, not by --help."""
    from pi_dynn.runtime.bundle import load_bundle
    from pi_dynn.runtime.session import Session

    exits = click.get_current_context().meta.get(ENABLED)
    return Session(load_bundle(bundle), threads=threads, engine=engine, exits=exits)

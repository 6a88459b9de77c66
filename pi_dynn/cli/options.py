"""Options several commands share, and the session they describe."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from pi_dynn.cli.printing import show
from pi_dynn.errors import InputError
from pi_dynn.records import NEVER

if TYPE_CHECKING:
    from torch import Tensor

    from pi_dynn.data.folders import ImageFolder
    from pi_dynn.data.preprocess import AnyImage, Preprocess
    from pi_dynn.data.sources import NamedImage
    from pi_dynn.runtime.bundle import Bundle
    from pi_dynn.runtime.session import Session

    NamedSource = tuple[str, AnyImage | InputError]
    """The name of an image, and what a Preprocess reads or the error in its place."""

split_option = click.option(
    "--split", type=click.Path(path_type=Path), metavar="FILE", help="Use only a part of a written split..."
)


def part_option(default: str) -> Callable:
    """--part with its default."""
    return click.option("--part", default=default, show_default=True, help="... namely this one.")


def layout_options(command: Callable) -> Callable:
    """--layout and --partial, which say what a folder of images has to be a whole copy of."""
    return _with_options(
        command,
        click.option("--layout", metavar="NAME", help="Published set that the folder must be a copy of, e.g. ucm."),
        click.option("--partial", is_flag=True, help="With --layout: the folder may be a part of that set."),
    )


def open_part(
    dataset: Path, split: Path | None, part: str, layout: str | None = None, partial: bool = False
) -> "ImageFolder":
    """The images of one part of a written split, or without one those of a data set to judge by.

    Raises: DatasetError.
    """
    from pi_dynn.data.layouts import open_data

    return open_data(dataset, layout, partial).part(part, split)


class CommaList(click.ParamType):
    """A list separated by commas, each part read by `kind`; `everything` is a word that stands for itself."""

    name = "list"

    def __init__(self, kind: Callable[[str], object], what: str, everything: str | None = None) -> None:
        self._kind, self._what, self._everything = kind, what, everything

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> list[object] | str:
        """The list. A part that is none of what is expected is a click.BadParameter."""
        if not isinstance(value, str):  # a default, or converted before
            return value
        if value == self._everything:
            return value
        try:
            parts = [self._kind(part.strip()) for part in value.split(",") if part.strip()]
        except ValueError:
            parts = []
        if not parts:
            known = "" if self._everything is None else f"{self._everything!r} or "
            self.fail(f"{value!r}: expected {known}{self._what} separated by commas", parameter, context)
        return parts


BLOCKS = CommaList(int, "block indices")
BLOCKS_OR_ALL = CommaList(int, "block indices", "all")
NUMBERS = CommaList(float, "numbers")
WORDS = CommaList(str, "names")

bundle_option = click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Bundle to use instead of the embedded one; lite0 is the other one that comes along.",
)
trust_option = click.option(
    "--trust", is_flag=True, help="Run the bundle's code whatever it does; without, it may only compute."
)
engine_option = click.option(
    "--engine",
    type=click.Choice(["auto", "onednn", "qnnpack", "x86", "fp32", "onnxruntime", "litert"]),
    default="auto",
    show_default=True,
    help="Int8 engine; auto tests and times those of this machine. onnxruntime and litert take bundles of their own "
    "form. PI_DYNN_ENGINE overrides auto.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads of the network. [default: 1 or as many as cores, at most OMP_NUM_THREADS; the faster one]",
)
threshold_option = click.option(
    "--threshold", type=click.FloatRange(0.0, 1.0), metavar="T", help="One threshold for all exits, in 0..1."
)
thresholds_option = click.option(
    "--thresholds",
    type=NUMBERS,
    metavar="T1,T2,...",
    help="One threshold for each exit, separated by commas.",
)
accept_all_option = click.option(
    "--accept-all", is_flag=True, help="Name the nearest class even where an image looks like none of them."
)
no_exit_option = click.option("--no-exit", is_flag=True, help="Never stop early: every image takes the full depth.")
log_option = click.option("--log", "as_log", is_flag=True, help="Print the lines of the published logs instead.")


def check_form(as_log: bool, as_json: bool) -> None:
    """Raises: click.UsageError for two forms at once."""
    if as_log and as_json:
        raise click.UsageError("give only one of --log and --json")


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON objects, one a line, and nothing else.")
enabled_option = click.option(
    "--exits", type=BLOCKS, metavar="B1,B2,...", help="Blocks whose exits may answer. [default: all of the bundle]"
)


@dataclass(frozen=True)
class SessionChoice:
    """The session that --bundle, --trust, --engine, --threads and --exits describe."""

    bundle: Path | None
    engine: str
    threads: int | None
    exits: list[int] | None
    accept_all: bool = False
    trust: bool = False

    def load_bundle(self) -> "Bundle":
        """The bundle alone."""
        from pi_dynn.runtime.bundle import load_bundle
        from pi_dynn.runtime.stage_network import form_of_engine

        return load_bundle(self.bundle, trust=self.trust, form=form_of_engine(self.engine))

    def bundle_file(self) -> Path | None:
        """The file of the bundle, which may change; None for one that comes with the package."""
        from pi_dynn.runtime.archive import is_shipped

        return None if is_shipped(self.bundle) else self.bundle

    def open(self) -> "Session":
        """The Session; torch is imported here, not by --help."""
        from pi_dynn.runtime.session import Session

        return Session(
            self.load_bundle(),
            threads=self.threads,
            engine=self.engine,
            exits=self.exits,
            accept_all=self.accept_all,
            on_timing=_say_timing,
        )


@cache
def _say_timing() -> None:
    """Tell somebody who waits, once, why the first answer takes longer."""
    if sys.stderr.isatty():
        show("Note: timing the engines and threads of this machine, once for this bundle", err=True)


def session_options(command: Callable) -> Callable:
    """--bundle, --trust, --engine, --threads and --exits, handed over as by `with_choice`."""
    return _with_options(
        with_choice(command), bundle_option, trust_option, engine_option, threads_option, enabled_option
    )


def with_choice(command: Callable) -> Callable:
    """Hands the options of a session over as `choice`; so is --accept-all, if it is there."""

    @wraps(command)
    def chosen(
        *args: Any,
        bundle: Path | None,
        trust: bool,
        engine: str,
        threads: int | None,
        exits: list[int] | None,
        accept_all: bool = False,
        **kwargs: Any,
    ) -> Any:
        return command(*args, choice=SessionChoice(bundle, engine, threads, exits, accept_all, trust), **kwargs)

    return chosen


def exit_options(command: Callable) -> Callable:
    """--threshold, --thresholds and --no-exit, handed over as by `with_thresholds`."""
    return _with_options(with_thresholds(command), threshold_option, thresholds_option, no_exit_option)


def with_thresholds(command: Callable) -> Callable:
    """Hands --threshold, --thresholds and --no-exit over as `thresholds`; None leaves them to the bundle.

    More than one of them is a click.UsageError.
    """

    @wraps(command)
    def chosen(
        *args: Any, threshold: float | None, thresholds: list[float] | None, no_exit: bool, **kwargs: Any
    ) -> Any:
        if sum((threshold is not None, thresholds is not None, no_exit)) > 1:
            raise click.UsageError("give only one of --threshold, --thresholds and --no-exit")
        exits = kwargs["choice"].exits if "choice" in kwargs else kwargs.get("exits")
        for other, given in (("--deadline-ms", kwargs.get("deadline_ms")), ("--exits", exits)):
            if no_exit and given is not None:
                raise click.UsageError(f"--no-exit and {other} cannot both be kept: leave one out")
        limits = NEVER if no_exit else threshold if thresholds is None else thresholds
        return command(*args, thresholds=limits, **kwargs)

    return chosen


def in_group(title: str, *options: Callable) -> Callable:
    """The options of these decorators under a title in the help of a `cloup.Command`, in this order."""

    def decorated(command: Callable) -> Callable:
        group, known = cloup.OptionGroup(title), len(getattr(command, "__click_params__", []))
        command = _with_options(command, *options)
        for option in getattr(command, "__click_params__", [])[known:]:
            option.group = group
        return command

    return decorated


def _with_options(command: Callable, *options: Callable) -> Callable:
    """The command with these options, shown in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def sample_folder() -> Path:
    """The sample photographs that come with the package."""
    import pi_dynn.assets

    return Path(pi_dynn.assets.__path__[0]) / "samples"


def named_or_samples(names: Sequence[str]) -> Iterator["NamedImage"]:
    """The images a person names, `-` being a list or an image on stdin; the sample photographs for none."""
    from pi_dynn.data.sources import named_images

    return named_images(names or (str(sample_folder()),), sys.stdin)


def common_folder(names: Sequence[str]) -> str:
    """The only folder named, or that of the samples, with a separator at its end; "" for other names."""
    folders = names or (str(sample_folder()),)
    return str(Path(folders[0]) / "x")[:-1] if len(folders) == 1 and Path(folders[0]).is_dir() else ""


def decoded(images: "Iterable[NamedSource]", preprocess: "Preprocess") -> list["Tensor"]:
    """All images as inputs of the network. Raises: InputError for the first that cannot be used."""
    from pi_dynn.data.prefetch import prefetch

    inputs = []
    for _, x in prefetch(images, preprocess):
        if isinstance(x, InputError):
            raise x
        inputs.append(x)
    return inputs

"""`pi-dynn classify`."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from pi_dynn.cli.calibration_options import (
    budget_options,
    calibration_option,
    check_planning,
    chosen_plan,
    planned_answers,
)
from pi_dynn.cli.cluster_options import answering_session, check_cluster, cluster_options
from pi_dynn.cli.options import (
    SessionChoice,
    accept_all_option,
    common_folder,
    exit_options,
    in_group,
    json_option,
    named_or_samples,
    session_options,
)
from pi_dynn.cli.printing import discard_stdout, is_piped, show
from pi_dynn.cli.progress import progress
from pi_dynn.cli.status import ExitStatus, show_error

if TYPE_CHECKING:
    from pi_dynn.classify.cluster import ClusterSession
    from pi_dynn.classify.run import Tally
    from pi_dynn.errors import InputError
    from pi_dynn.records import Prediction
    from pi_dynn.runtime.session import Session

_UNSURE = 0.5  # a probability below it is shown dimmed


@click.command(cls=cloup.Command)
@click.argument("paths", nargs=-1, metavar="[PATH ...]")
@in_group(
    "Answers",
    click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="Show the N likeliest classes."),
    accept_all_option,
    click.option("--csv", "csv_path", type=click.Path(path_type=Path), metavar="FILE", help="Also write a CSV file."),
    json_option,
)
@in_group(
    "When to stop",
    exit_options,
    calibration_option,
    budget_options,
    click.option(
        "--deadline-ms", type=click.FloatRange(0.0), help="Answer at the next exit once this much time has passed."
    ),
)
@in_group(
    "Many images",
    click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True, help="Images run together."),
    cluster_options,
)
@in_group("Bundle and engine", session_options)
def command(
    paths: tuple[str, ...],
    thresholds: list[float] | float | None,
    deadline_ms: float | None,
    top: int,
    batch_size: int,
    csv_path: Path | None,
    cluster: str | None,
    ship: bool,
    as_json: bool,
    choice: SessionChoice,
    adaptive: bool,
    **planning: Any,
) -> int:
    """Classify photographs: files, folders, glob patterns, http(s) URLs, or - for stdin.

    Stdin is a list of paths and URLs, one a line, or the bytes of one image. Without PATH the bundled sample
    photographs are classified. Files that cannot be read get one error line each; the others are still answered, and
    the exit status is 1.

    An image leaves at the first exit whose score, by a learned gate or by the largest probability, reaches the
    threshold; `pi-dynn info` says which it is. The percentage is the network's probability of the class among all
    classes: 40 % is a sure answer where every other class has far less.

    \b
    Examples:
      pi-dynn classify photo.jpg
      pi-dynn classify holiday/ --top 3 --csv answers.csv
      find . -name '*.jpg' | pi-dynn classify - --json
      ssh camera cat photo.jpg | pi-dynn classify -
      pi-dynn classify camera/ --budget-ms 12 --adaptive
      pi-dynn classify holiday/ --cluster tcp://scheduler:8786 --ship
    """
    check_planning(planning, adaptive, thresholds, batch_size)
    check_cluster(cluster, ship, adaptive=adaptive)
    if deadline_ms is not None and batch_size > 1:
        raise click.UsageError("--deadline-ms is kept per image: use it with --batch-size 1")
    deadline_s = None if deadline_ms is None else deadline_ms / 1e3

    from pi_dynn.classify.run import Tally
    from pi_dynn.clock import PerfClock

    images, total = named_or_samples(paths), None
    if sys.stderr.isatty() and "-" not in paths:  # a bar that knows its end, for the price of a list of names
        named = list(images)
        images, total = iter(named), len(named)
    with answering_session(choice, cluster, ship) as session:
        plan = chosen_plan(session, **planning)
        if plan is None:
            answers = session.answer_stream(images, batch_size, thresholds, deadline_s, top)
        else:
            answers = planned_answers(session, images, plan, adaptive, batch_size, deadline_s, top)
        tally = Tally(session, PerfClock())
        return show_answers(tally.count(answers), tally, session, as_json, csv_path, common_folder(paths), total)


def show_answers(
    answers: Iterable[tuple[str, "Prediction | InputError"]],
    tally: "Tally",
    session: "Session | ClusterSession",
    as_json: bool,
    csv_path: Path | None,
    folder: str = "",
    total: int | None = None,
) -> int:
    """Print every answer, of images in `folder` by their names in it, and the summary; the exit status."""
    from pi_dynn.classify.text import csv_row, label_width, summary_line
    from pi_dynn.errors import InputError
    from pi_dynn.text import counted

    interrupted, like_none = False, 0
    with ExitStack() as stack:
        write_csv = stack.enter_context(csv_rows(csv_path)) if csv_path else None
        # A bar would be torn by JSON on the terminal, and by what a program prints that reads the answers.
        with_bar = not as_json if sys.stdout.isatty() else not is_piped()
        advance = stack.enter_context(progress("classify", total, enabled=with_bar))
        width = label_width(session.manifest.labels)
        try:
            for path, answer in answers:
                like_none += not isinstance(answer, InputError) and not answer.accepted
                if write_csv is not None:
                    write_csv(csv_row(path, answer))
                try:
                    show_answer(path, answer, as_json, session, width, folder)
                except BrokenPipeError:
                    if write_csv is None:
                        raise
                    discard_stdout()  # the file is written whole
                advance()
        except KeyboardInterrupt:
            interrupted = True
    summary = tally.summary(interrupted)
    if as_json:
        click.echo(json.dumps({"summary": summary.to_dict()}))
    else:
        show(summary_line(summary))
        if like_none > summary.images / 2:
            classes = counted(len(session.manifest.labels), "class")
            show(
                f"Note: most of these are like none of the {classes} that the bundle knows (`pi-dynn info`): "
                "`pi-dynn learn` makes a bundle of your own",
                err=True,
            )
    if interrupted:
        return ExitStatus.INTERRUPTED
    return ExitStatus.ERROR if summary.failed else ExitStatus.OK


def show_answer(
    path: str,
    answer: "Prediction | InputError",
    as_json: bool,
    session: "Session | ClusterSession",
    width: int,
    folder: str,
) -> None:
    """Print one answer or error, dim if it is unsure."""
    from pi_dynn.classify.text import prediction_line, prediction_object
    from pi_dynn.errors import InputError

    if isinstance(answer, InputError):
        message = " ".join(str(answer).split())
        if as_json:
            click.echo(json.dumps({"path": path, "error": message}))
        show_error(message)
    else:
        if as_json:
            click.echo(json.dumps(prediction_object(path, answer)))
        else:
            line = prediction_line(path.removeprefix(folder), answer, session.exits + 1, width)
            unsure = not answer.accepted or answer.probability < _UNSURE
            click.echo(click.style(line, dim=True) if unsure and not os.environ.get("NO_COLOR") else line)


@contextmanager
def csv_rows(path: Path) -> Iterator[Callable[[dict[str, Any]], object]]:
    """Yields a function that adds a row to the CSV file at `path`, written atomically when the body ends."""
    from pi_dynn.classify.text import CSV_FIELDS
    from pi_dynn.files import replacing

    with replacing(path) as stream:
        # File names may hold bytes that are no UTF-8: they are written as they are.
        text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
        writer = csv.DictWriter(text, CSV_FIELDS)
        writer.writeheader()
        yield writer.writerow
        text.detach()  # flushes, and leaves closing to `replacing`

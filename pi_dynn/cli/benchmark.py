"""`pi-dynn benchmark`."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pi_dynn.cli.options import (
    WORDS,
    CommaList,
    SessionChoice,
    decoded,
    json_option,
    layout_options,
    named_or_samples,
    session_options,
)
from pi_dynn.cli.printing import show
from pi_dynn.text import counted

if TYPE_CHECKING:
    from torch import Tensor

    from pi_dynn.board import BoardSnapshot
    from pi_dynn.cli.options import NamedSource
    from pi_dynn.latency.benchmark import Variant
    from pi_dynn.latency.records import ColdStart, LatencyRow
    from pi_dynn.runtime.session import Session


def positive(text: str) -> int:
    """A whole number from 1 on. Raises: ValueError."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


@click.command()
@click.argument("images", nargs=-1, metavar="[PATH ...]")
@click.option("--n", "rounds", type=click.IntRange(5), default=100, show_default=True, help="Answers per variant.")
@click.option(
    "--engines",
    type=CommaList(str, "names", "all"),
    metavar="E1,E2,...",
    help="Compare these, or all. [default: the one --engine chooses]",
)
@click.option(
    "--thread-counts",
    type=CommaList(positive, "numbers from 1 on", "all"),
    metavar="N1,N2,...",
    help="Compare these, or all up to the cores there are.",
)
@click.option("--each-exit", is_flag=True, help="Also force all images to leave at each exit in turn.")
@click.option(
    "--against",
    type=WORDS,
    metavar="P1,P2,...",
    help="Also run the network as eager, compile, onnxruntime or executorch does.",
)
@click.option("--cold-start", is_flag=True, help="Also start fresh processes: time to the first answer, peak memory.")
@click.option(
    "--predict",
    type=WORDS,
    metavar="B1,B2,...",
    help="Predict milliseconds on pi4 and pi5 from counts on emulated cores, and measure nothing.",
)
@click.option(
    "--throughput", is_flag=True, help="Measure images a second at the largest batch of a power of two that fits."
)
@click.option("--batch-size", type=click.IntRange(1), help="... or at this one.")
@click.option(
    "--seconds", type=click.FloatRange(0.0, min_open=True), default=10.0, help="... for so long. [default: 10]"
)
@click.option("--device", metavar="NAME", help="... of the network alone on a GPU, such as cuda, in floats.")
@layout_options
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@click.option(
    "--save",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write the latencies and this board's state, to send to others or for `report`.",
)
@json_option
@session_options
def command(
    images: tuple[str, ...],
    rounds: int,
    engines: list[str] | Literal["all"] | None,
    thread_counts: list[int] | Literal["all"] | None,
    each_exit: bool,
    against: list[str] | None,
    cold_start: bool,
    predict: list[str] | None,
    throughput: bool,
    batch_size: int | None,
    seconds: float,
    device: str | None,
    layout: str | None,
    partial: bool,
    markdown: bool,
    save: Path | None,
    as_json: bool,
    choice: SessionChoice,
) -> None:
    """Measure latency at full depth and with exits, all variants interleaved in one run.

    Images are decoded beforehand; without PATH they are the bundled sample photographs, of a folder at most N, drawn
    the same way every time. Engine fp32 computes an
    int8 bundle in floats. What --against names leaves for each image where the bundle does; eager, compile and
    executorch have the bundle's network with other weights, which take as long.

    \b
    Examples:
      pi-dynn benchmark --n 200 --engines all --threads 1
      pi-dynn benchmark --thread-counts all --each-exit --cold-start
      pi-dynn benchmark --threads 1 --against eager,onnxruntime
      pi-dynn benchmark --predict pi4,pi5
      pi-dynn benchmark --threads 1 --each-exit --save my_pi4.json
      pi-dynn benchmark --throughput --bundle recnext_t.pt
    """
    if save is not None and (throughput or predict is not None):
        raise click.UsageError("--save keeps measured latencies: leave out --predict and --throughput")
    if throughput:
        _show_throughput(choice, batch_size, seconds, device, (markdown, as_json))
        return
    if batch_size is not None or device is not None:
        raise click.UsageError("--batch-size and --device are for --throughput: give it with them")
    named = _named(images, rounds, layout, partial)
    if predict is not None:
        _show_predictions(predict, named, choice, markdown, as_json)
        return
    from pi_dynn.board import Board
    from pi_dynn.clock import PerfClock
    from pi_dynn.latency.benchmark import measure
    from pi_dynn.latency.text import cold_start_table, latency_table

    counts = _thread_counts(thread_counts, choice.threads)
    sessions = _sessions(replace(choice, threads=counts[0]), _engines(engines, choice.engine))
    first = _file_to_start_with(named[0][1]) if cold_start else ""
    inputs = decoded(named, sessions[0].preprocess)
    variants = _variants(sessions, inputs, counts, each_exit)
    if against is not None:
        variants += _peer_variants(sessions[0], inputs, against, counts[0])
    before = None if save is None else Board().snapshot()
    rows = measure(variants, rounds, sessions[0].threads, PerfClock())
    if save is not None and before is not None:
        _save(save, sessions, rows, before)
    starts = _cold_starts(choice.bundle, sessions, first) if cold_start else []
    if as_json:
        for line in (*(row.to_dict() for row in rows), *({"cold_start": start.to_dict()} for start in starts)):
            click.echo(json.dumps(line))
        return
    click.echo(latency_table(rows, markdown))
    if starts:
        click.echo("\n" + cold_start_table(starts, markdown))
    threads = ", ".join(counted(count or sessions[0].threads, "thread") for count in counts)
    click.echo(f"{counted(len(inputs), 'image')}, {counted(rounds, 'answer')} each, {threads}, interleaved", err=True)


def _save(path: Path, sessions: "Sequence[Session]", rows: "list[LatencyRow]", before: "BoardSnapshot") -> None:
    """Write the rows of one bundle with the board as it was before and is now."""
    from pi_dynn.board import Board
    from pi_dynn.files import write_text
    from pi_dynn.latency.records import BoardBenchmark

    bundle = sessions[0].bundle
    engines = [session.engine for session in sessions]
    size = bundle.manifest.preprocess.size
    versions = {}
    for package in ("pi_dynn", "torch", "onnxruntime", "ai-edge-litert"):
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    saved = BoardBenchmark(
        bundle.manifest.model, bundle.sha256, size, engines, versions, before, Board().snapshot(), rows
    )
    write_text(path, json.dumps(saved.to_dict(), indent=1) + "\n")


def _show_predictions(
    boards: list[str], named: "list[NamedSource]", choice: SessionChoice, markdown: bool, as_json: bool
) -> None:
    """Print the predicted latency of every exit on these boards, weighted by where the images leave."""
    from pi_dynn.latency.benchmark import natural_exits
    from pi_dynn.latency.boards import board_model, predict_exits
    from pi_dynn.latency.emulated import count_exits
    from pi_dynn.latency.text import predicted_notes, predicted_table

    models = [board_model(name) for name in boards]
    session = choice.open()
    exits = natural_exits(session, decoded(named, session.preprocess))
    leaving = [exits.count(k) for k in range(session.exits + 1)]
    predictions = []
    for model in models:
        counts = count_exits(session.bundle, model.board.core, lambda text: click.echo(text, err=True))
        predictions.append(predict_exits(model, counts, leaving))
    if as_json:
        for one in predictions:
            click.echo(json.dumps(one.to_dict()))
        return
    click.echo(predicted_table(predictions, markdown))
    show("\n".join(predicted_notes(predictions)))


def _show_throughput(
    choice: SessionChoice, batch_size: int | None, seconds: float, device: str | None, form: tuple[bool, bool]
) -> None:
    """Print the images a second, as Markdown or JSON by `form`."""
    from pi_dynn.clock import PerfClock
    from pi_dynn.latency.text import throughput_table
    from pi_dynn.latency.throughput import device_throughput, session_throughput

    session, clock = choice.open(), PerfClock()
    if batch_size is None:
        what = "looking for the largest batch that fits into memory, up to 2,048 images: minutes on a small machine"
        click.echo(f"{what}, where --batch-size 8 is often faster", err=True)
    if device is None:
        result = session_throughput(session, clock, batch_size, seconds)
    else:
        result = device_throughput(session, device, clock, batch_size, seconds)
    markdown, as_json = form
    click.echo(json.dumps(result.to_dict()) if as_json else throughput_table([result], markdown))


def _named(names: tuple[str, ...], rounds: int, layout: str | None, partial: bool) -> "list[NamedSource]":
    """The images that are named; of a folder at most `rounds`, since no more are answered."""
    if len(names) != 1 or not Path(names[0]).is_dir():
        if layout is not None:
            raise click.UsageError("--layout is for a data set: give its folder")
        return list(named_or_samples(names))
    from random import Random

    from pi_dynn.data.layouts import open_images

    data = open_images(names[0], layout, partial)
    chosen = sorted(Random(0).sample(range(len(data)), min(rounds, len(data))))
    return [(str(data.paths[i]), data.source(i)) for i in chosen]


def _engines(engines: list[str] | Literal["all"] | None, engine: str) -> list[str]:
    if engines is None:
        return [engine]
    if engines == "all":
        from pi_dynn.runtime.engines import available_engines

        return [*available_engines(), "fp32"]
    return engines


def _thread_counts(counts: list[int] | Literal["all"] | None, threads: int | None) -> Sequence[int | None]:
    """The counts to compare; None lets the session choose. Raises: click.UsageError."""
    if counts is None:
        return [threads]
    if threads is not None:
        raise click.UsageError("give only one of --threads and --thread-counts")
    if counts == "all":
        from pi_dynn.board import usable_cores

        return list(range(1, usable_cores() + 1))
    return counts


def _sessions(choice: SessionChoice, engines: list[str]) -> list["Session"]:
    """A session for each engine; of several one that does not work here is left out with a note."""
    from pi_dynn.errors import EngineUnavailable

    sessions = []
    for name in engines:
        try:
            sessions.append(replace(choice, engine=name).open())
        except EngineUnavailable as error:
            if len(engines) == 1:
                raise
            show(f"Note: {error}", err=True)
    if not sessions:
        raise EngineUnavailable(f"none of the engines {', '.join(engines)} works here: choose others or auto")
    return sessions


def _variants(
    sessions: list["Session"], inputs: list["Tensor"], counts: Sequence[int | None], each_exit: bool
) -> list["Variant"]:
    from pi_dynn.latency.benchmark import session_variants

    variants = []
    for session in sessions:
        name = f"{session.manifest.precision} {session.engine}"
        for count in counts:
            title = name if count is None or len(counts) == 1 else f"{name}, {counted(count, 'thread')}"
            variants += session_variants(session, inputs, title, each_exit, count)
    return variants


def _peer_variants(
    session: "Session", inputs: list["Tensor"], names: list[str], threads: int | None
) -> list["Variant"]:
    """The bundle's network in other runtimes, with the exits of the bundle."""
    from pi_dynn.latency.benchmark import natural_exits, peer_variants
    from pi_dynn.latency.peers import peers_of, session_peer
    from pi_dynn.models import create_model

    manifest = session.manifest
    model = create_model(manifest.model, **manifest.arguments).eval()
    exits = natural_exits(session, inputs)
    peers = [
        peer for name in names for peer in peers_of(name.strip(), model, session.bundle, threads or session.threads)
    ]
    alone = session_peer(f"{manifest.precision} {session.engine}, network alone", session)  # as they are timed
    return [variant for peer in (alone, *peers) for variant in peer_variants(peer, inputs, exits)]


def _cold_starts(bundle: Path | None, sessions: list["Session"], image: str) -> list["ColdStart"]:
    from pi_dynn.latency.benchmark import measure_cold_start

    return [measure_cold_start(bundle, one.engine, one.threads, image) for one in sessions]


def _file_to_start_with(image: object) -> str:
    """The image for fresh processes. Raises: click.UsageError for one that they cannot open."""
    if not isinstance(image, str | Path):
        raise click.UsageError("--cold-start answers in other processes: give the image as a file")
    return str(image)

"""`pi-dynn benchmark`."""

import json
import sys

import click

from pi_dynn.cli.options import json_option, open_session, session_options


@click.command()
@click.argument("images", nargs=-1, metavar="[PATH ...]")
@click.option("--n", "rounds", type=click.IntRange(5), default=100, show_default=True, help="Answers per variant.")
@click.option("--engines", metavar="E1,E2,...", help="Compare these, or all. [default: the one --engine chooses]")
@click.option("--thread-counts", metavar="N1,N2,...", help="Compare these, or all up to the cores there are.")
@click.option("--each-exit", is_flag=True, help="Also force every image out at each exit in turn.")
@click.option(
    "--against", metavar="P1,P2,...", help="Also run the network as eager, compile, onnxruntime or executorch does."
)
@click.option("--cold-start", is_flag=True, help="Also start fresh processes: time to the first answer, peak memory.")
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@json_option
@session_options
def command(images, rounds, each_exit, against, cold_start, markdown, as_json, bundle, engine, **options) -> None:
    """Measure latency: full depth and with exits, every variant in turns in one run.

    Images are decoded beforehand; without PATH they are the bundled sample photographs. Engine fp32 computes an
    int8 bundle in floats. What --against names leaves for each image where the bundle does; eager, compile and
    executorch have the bundle's network with other weights, which take as long.

    \b
    Examples:
      pi-dynn benchmark --n 200 --engines all --threads 1
      pi-dynn benchmark --thread-counts all --each-exit --cold-start
      pi-dynn benchmark --threads 1 --against eager,onnxruntime
    """
    from pi_dynn.cli.classify import sample_folder
    from pi_dynn.clock import PerfClock
    from pi_dynn.data.sources import image_sources
    from pi_dynn.latency.benchmark import measure
    from pi_dynn.latency.text import cold_start_table, latency_table

    counts = _thread_counts(options["thread_counts"], options["threads"])
    sessions = _sessions(bundle, _engines(options["engines"], engine), counts[0])
    sources = list(image_sources(images or (str(sample_folder()),), sys.stdin))
    inputs = [sessions[0].preprocess.load(source.check()) for source in sources]
    variants = _variants(sessions, inputs, counts, each_exit)
    if against is not None:
        variants += _peer_variants(sessions[0], inputs, against.split(","), counts[0])
    rows = measure(variants, rounds, sessions[0].threads, PerfClock())
    starts = _cold_starts(bundle, sessions, sources[0]) if cold_start else []
    if as_json:
        for line in (*(row.to_dict() for row in rows), *({"cold_start": start.to_dict()} for start in starts)):
            click.echo(json.dumps(line))
        return
    click.echo(latency_table(rows, markdown))
    if starts:
        click.echo("\n" + cold_start_table(starts, markdown))
    threads = ", ".join(str(count or sessions[0].threads) for count in counts)
    click.echo(f"{len(inputs)} images, {rounds} answers each, {threads} threads, interleaved", err=True)


def _engines(engines: str | None, engine: str) -> list[str]:
    if engines is None:
        return [engine]
    if engines == "all":
        from pi_dynn.runtime.engines import available_engines

        return [*available_engines(), "fp32"]
    return [name.strip() for name in engines.split(",")]


def _thread_counts(text: str | None, threads: int | None) -> list[int | None]:
    """The counts to compare; None is what a session takes by itself. Raises: click.UsageError."""
    if text is None:
        return [threads]
    if threads is not None:
        raise click.UsageError("give only one of --threads and --thread-counts")
    if text == "all":
        from pi_dynn.runtime.engine_choice import usable_cores

        return list(range(1, usable_cores() + 1))
    try:
        counts = [int(one) for one in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise click.UsageError(f"--thread-counts {text!r}: expected numbers from 1 on, separated by commas")
    return counts


def _sessions(bundle, engines: list[str], threads: int | None) -> list:
    """A session for each engine; of several one that does not work here is left out with a note."""
    from pi_dynn.errors import EngineUnavailable

    found = []
    for name in engines:
        try:
            found.append(open_session(bundle, name, threads))
        except EngineUnavailable as error:
            if len(engines) == 1:
                raise
            click.echo(f"Note: {error}", err=True)
    if not found:
        raise EngineUnavailable(f"none of the engines {', '.join(engines)} works here: choose others or auto")
    return found


def _variants(sessions: list, inputs: list, counts: list[int | None], each_exit: bool) -> list:
    from pi_dynn.latency.benchmark import session_variants

    found = []
    for session in sessions:
        name = f"{session.manifest.precision} {session.engine}"
        for count in counts:
            title = name if len(counts) == 1 else f"{name}, {count} threads"
            found += session_variants(session, inputs, title, each_exit, count)
    return found


def _peer_variants(session, inputs: list, names: list[str], threads: int | None) -> list:
    """The bundle's network as others run it, leaving where the bundle does."""
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


def _cold_starts(bundle, sessions: list, source) -> list:
    from pi_dynn.latency.benchmark import measure_cold_start

    return [measure_cold_start(bundle, one.engine, one.threads, source.check()) for one in sessions]

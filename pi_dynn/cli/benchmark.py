"""`pi-dynn benchmark`."""

import json
import sys

import click

from pi_dynn.cli.options import json_option, open_session, session_options


@click.command()
@click.argument("images", nargs=-1, metavar="[PATH ...]")
@click.option("--n", "rounds", type=click.IntRange(5), default=100, show_default=True, help="Answers per variant.")
@click.option("--engines", metavar="E1,E2,...", help="Compare these engines. [default: the one --engine chooses]")
@click.option("--each-exit", is_flag=True, help="Also force every image out at each exit in turn.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@json_option
@session_options
def command(images, rounds, engines, each_exit, markdown, as_json, bundle, engine, threads) -> None:
    """Measure latency: full depth and with exits, every variant in turns in one run.

    Images are decoded beforehand; without PATH they are the bundled sample photographs.

    \b
    Example:
      pi-dynn benchmark --n 200 --engines fp32,onednn,qnnpack --threads 1
    """
    from pi_dynn.cli.classify import sample_folder
    from pi_dynn.clock import PerfClock
    from pi_dynn.data.sources import image_sources
    from pi_dynn.jobs.benchmark import measure, session_variants
    from pi_dynn.report.benchmark import latency_table

    names = [name.strip() for name in engines.split(",")] if engines else [engine]
    sessions = [open_session(bundle, name, threads) for name in names]
    sources = image_sources(images or (str(sample_folder()),), sys.stdin)
    inputs = [sessions[0].preprocess.load(source.check()) for source in sources]
    variants = []
    for session in sessions:
        variants += session_variants(session, inputs, f"{session.manifest.precision} {session.engine}", each_exit)
    rows = measure(variants, rounds, sessions[0].threads, PerfClock())
    if as_json:
        for row in rows:
            click.echo(json.dumps(row.to_dict()))
        return
    click.echo(latency_table(rows, markdown))
    click.echo(f"{len(inputs)} images, {rounds} answers each, {sessions[0].threads} threads, interleaved", err=True)

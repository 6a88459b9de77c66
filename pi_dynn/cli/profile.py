"""`pi-dynn profile`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pi_dynn.cli.options import SessionChoice, decoded, exit_options, json_option, named_or_samples, session_options
from pi_dynn.cli.printing import show

if TYPE_CHECKING:
    from torch import Tensor

    from pi_dynn.runtime.session import Session


@click.command()
@click.argument("images", nargs=-1, metavar="[PATH ...]")
@click.option("--n", type=click.IntRange(5), default=200, show_default=True, help="Answers, over the images in turn.")
@click.option("--inside", is_flag=True, help="Open the steps: norms, transforms, products, softmax, ...")
@click.option("--trace", type=click.Path(path_type=Path), metavar="FILE", help="Save a trace for ui.perfetto.dev.")
@click.option("--no-roofline", is_flag=True, help="Do not measure what this machine could do at best.")
@click.option("--fit", is_flag=True, help="Fit a latency model, keep it for budgets, and check it on the images.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@exit_options
@json_option
@session_options
def command(
    images: tuple[str, ...],
    n: int,
    inside: bool,
    trace: Path | None,
    no_roofline: bool,
    fit: bool,
    markdown: bool,
    as_json: bool,
    thresholds: list[float] | float | None,
    choice: SessionChoice,
) -> None:
    """Show where the time of an answer goes, step by step, and how near the machine's limits that is.

    The clock is read between the steps inside the network that answers; what that costs is printed as the
    time with and without it. Images are decoded beforehand; without PATH they are the bundled samples.

    \b
    Examples:
      pi-dynn profile --threads 1
      pi-dynn profile --inside --no-exit
      pi-dynn profile holiday/ --no-exit --trace trace.json
      pi-dynn profile --fit
    """
    from pi_dynn.board import take_snapshot
    from pi_dynn.clock import PerfClock
    from pi_dynn.files import write_text
    from pi_dynn.latency.profile import chrome_trace, measure_roofline, profile, time_steps
    from pi_dynn.latency.text import profile_notes, profile_table

    session = choice.open()
    limits = session.resolve_thresholds(thresholds)
    inputs = decoded(named_or_samples(images), session.preprocess)
    if fit:
        _fit(session, inputs, n, limits, as_json, markdown)
        return
    clock = PerfClock()
    roofline = None if no_roofline else measure_roofline(session.engine, session.threads, take_snapshot(), clock)
    timed = time_steps(session, session.timed_network(inside), inputs, n, clock, limits)
    result = profile(session, timed, inputs[0], roofline)
    if trace is not None:
        write_text(trace, json.dumps(chrome_trace(timed)) + "\n")
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    else:
        click.echo(profile_table(result, markdown))
    for note in profile_notes(result):
        show(note, err=True)


def _fit(
    session: "Session", inputs: list["Tensor"], n: int, limits: list[float], as_json: bool, markdown: bool
) -> None:
    """Fit, keep and check a latency model; print predicted beside measured."""
    from pi_dynn.clock import PerfClock
    from pi_dynn.latency.latency_model import check_latency_model, fit_latency_model, save_latency_model
    from pi_dynn.latency.text import check_table, model_text

    clock = PerfClock()
    model = fit_latency_model(session, inputs, n, clock)
    check = check_latency_model(model, session, inputs, max(5, n // 10), clock, limits)
    path = save_latency_model(model)
    if as_json:
        click.echo(json.dumps({"model": model.to_dict()}))
        click.echo(json.dumps({"check": check.to_dict()}))
    else:
        show(model_text(model, session.manifest.blocks) + "\n")
        click.echo(check_table(check, markdown))
    click.echo(f"kept in {path}; `pi-dynn calibrate --budget-ms` uses it", err=True)

"""`pi-dynn energy`."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from pi_dynn.cli.meter_options import meter_options, take_backend_options
from pi_dynn.cli.options import (
    SessionChoice,
    check_form,
    in_group,
    json_option,
    layout_options,
    log_option,
    sample_folder,
    session_options,
)
from pi_dynn.cli.printing import show
from pi_dynn.cli.progress import stage_progress
from pi_dynn.cli.status import ExitStatus

if TYPE_CHECKING:
    from pi_dynn.energy.protocol import EnergyParts, Measurement
    from pi_dynn.energy.records import EnergyResult
    from pi_dynn.energy.rehearsal import RehearsedSession
    from pi_dynn.runtime.session import Session


@click.command(cls=cloup.Command)
@in_group(
    "Trials",
    click.option("--n", type=click.IntRange(1), help="Inferences in each trial. [default: as many as take 10 s]"),
    click.option("--exact-n", is_flag=True, help="Keep N even where the trials are too short for the meter."),
    click.option(
        "--trials", type=click.IntRange(1), default=5, show_default=True, help="Trials; 3 or more give intervals."
    ),
    click.option(
        "--idle-s",
        type=click.FloatRange(0.0, min_open=True),
        default=10.0,
        show_default=True,
        help="Seconds of idle power before and after each trial.",
    ),
    click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True, help="Images run together."),
    click.option("--each-exit", is_flag=True, help="Also force all images to each exit; check that the sum agrees."),
    click.option(
        "--baseline", type=click.Path(path_type=Path), metavar="BUNDLE", help="Measure this in turns with it."
    ),
)
@in_group(
    "Images",
    click.option(
        "--data", type=click.Path(path_type=Path), metavar="DIR", help="Images. [default: the bundled samples]"
    ),
    layout_options,
)
@in_group("Meter", meter_options)
@in_group(
    "Another instrument",
    click.option("--gpio", metavar="CHIP:LINE", help="Line that is high in every trial, as /dev/gpiochip0:17."),
    click.option(
        "--join", type=click.Path(path_type=Path), metavar="RUN.json", help="Join a run of --meter external ..."
    ),
    click.option(
        "--trace", type=click.Path(path_type=Path), metavar="FILE", help="... with this CSV of an instrument ..."
    ),
    click.option("--instrument", metavar="NAME", help="... of this name, which stands beside every figure."),
    click.option(
        "--trace-volts", type=click.FloatRange(0.0, min_open=True), help="Supply, if the CSV has amperes only."
    ),
)
@in_group(
    "What is written",
    click.option("--name", help="Name in the table. [default: the network and its precision]"),
    click.option(
        "--save", type=click.Path(path_type=Path), metavar="RUN.json", help="Keep the run, raw trace included."
    ),
    click.option("--markdown", is_flag=True, help="Print the tables as Markdown."),
    log_option,
    json_option,
)
@in_group("Bundle and engine", session_options)
def command(**options: Any) -> int:
    """Measure what one answer costs, in millijoules, with its 95 % interval.

    Idle power is measured before and after every trial; net energy is what an answer adds to it. Without a power
    meter the figures come from a model and say ESTIMATED; --meter fake runs on a simulated board.
    --meter replay:RUN.json computes the figures of a saved run again; --meter external leaves the recording of power to
    an instrument, whose CSV --join adds.

    \b
    Examples:
      pi-dynn energy --n 4000
      pi-dynn energy --meter ina219 --require-meter --each-exit --save run.json
      pi-dynn energy --baseline full.pt --bundle early.pt --markdown
      pi-dynn energy --meter external --save run.json
      pi-dynn energy --join run.json --trace ppk2.csv --trace-volts 5.1 --instrument "PPK2 no. 1" --save joined.json
    """
    backend = take_backend_options(options)
    shown = {name: options.pop(name) for name in ("markdown", "as_log", "as_json", "save")}
    joined = {name: options.pop(name) for name in ("join", "trace", "instrument", "trace_volts")}
    check_form(shown["as_log"], shown["as_json"])
    meter_name, said = options["meter_name"], list[str]()

    def say(note: str) -> None:
        """Print a note, before the trials that it is about if it can be; once."""
        if note not in said:
            said.append(note)
            show(f"Note: {note}", err=True)

    from pi_dynn.energy.runs import is_run, replay_run, save_run

    if any(value is not None for value in joined.values()):
        measurement, results = _join(**joined)
    elif meter_name == "external":
        if shown["save"] is None:
            raise click.UsageError("--meter external has no figures yet: keep the run with --save")
        measurement, results = _measure(backend, say, **options)
        save_run(shown["save"], measurement, results)
        click.echo(
            f"{shown['save']}: when the board was idle and when it worked; now --join it with the trace", err=True
        )
        return ExitStatus.INTERRUPTED if measurement.recording.interrupted else ExitStatus.OK
    elif meter_name.startswith("replay:") and is_run(meter_name.partition(":")[2]):
        measurement, results = replay_run(meter_name.partition(":")[2])
    else:
        measurement, results = _measure(backend, say, **options)
    return _show(measurement, results, say, **shown)


def _join(
    join: Path | None, trace: Path | None, instrument: str | None, trace_volts: float | None
) -> "tuple[Measurement, list[EnergyResult]]":
    """A saved run with the trace of an instrument in place of its own."""
    from pi_dynn.energy.join import join_trace
    from pi_dynn.energy.results import energy_results
    from pi_dynn.energy.runs import load_run
    from pi_dynn.power.instruments import load_instrument_trace

    if join is None or trace is None or instrument is None:
        raise click.UsageError("give --join RUN.json, --trace FILE and --instrument NAME together")
    measurement = join_trace(load_run(join), load_instrument_trace(trace, instrument, trace_volts)).measurement
    return measurement, energy_results(*measurement)


def _measure(
    backend: dict[str, Any],
    say: Callable[[str], None],
    meter_name: str,
    require_meter: bool,
    gpio: str | None,
    **options: Any,
) -> "tuple[Measurement, list[EnergyResult]]":
    """Open the meter first, because it may be missing, then the sessions; measure and compute the figures."""
    from pi_dynn.board import Board
    from pi_dynn.clock import PerfClock
    from pi_dynn.energy.protocol import EnergyParts
    from pi_dynn.errors import MeterNotFound
    from pi_dynn.power import open_meter

    with ExitStack() as stack:
        show_stage = stack.enter_context(stage_progress())
        edge: Callable[[bool], None] = lambda begins: None  # noqa: E731
        if gpio is not None:
            from pi_dynn.power.gpio import trial_line

            edge = stack.enter_context(trial_line(gpio))
        if meter_name == "fake":
            if require_meter:
                raise MeterNotFound("'fake' is simulated: name a real meter, or do not require one")
            from pi_dynn.energy.rehearsal import RehearsedSession, rehearsal_parts

            parts = replace(stack.enter_context(rehearsal_parts(Board(), show_stage)), on_note=say, on_trial=edge)
            return _run(parts, lambda session: RehearsedSession(session, parts.clock), **options)
        clock = PerfClock()
        meter = stack.enter_context(open_meter(meter_name, clock=clock, require=require_meter, **backend))
        parts = EnergyParts(meter, clock, Board(), on_stage=show_stage, on_note=say, on_trial=edge)
        return _run(parts, lambda session: session, **options)


def _run(
    parts: "EnergyParts",
    prepare: Callable[["Session"], "Session | RehearsedSession"],
    *,
    n: int | None,
    exact_n: bool,
    data: Path | None,
    layout: str | None,
    partial: bool,
    trials: int,
    idle_s: float,
    batch_size: int,
    each_exit: bool,
    baseline: Path | None,
    name: str | None,
    choice: SessionChoice,
) -> "tuple[Measurement, list[EnergyResult]]":
    """Load what is to be measured, measure it, and compute."""
    from pi_dynn.data.layouts import open_images
    from pi_dynn.energy.measure import load_candidate, measure_energy
    from pi_dynn.energy.protocol import EnergySettings
    from pi_dynn.energy.results import energy_results

    settings = EnergySettings(
        n=n, trials=trials, idle_s=idle_s, batch_size=batch_size, each_exit=each_exit, exact_n=exact_n
    )
    choices = [(choice, name)] if baseline is None else [(replace(choice, bundle=baseline), None), (choice, name)]
    images = open_images(data or sample_folder(), layout, partial)
    candidates = [load_candidate(prepare(one.open()), images, n, title) for one, title in choices]
    measurement = measure_energy(parts, candidates, settings)
    return measurement, energy_results(*measurement)


def _show(
    measurement: "Measurement",
    results: list["EnergyResult"],
    say: Callable[[str], None],
    markdown: bool,
    as_log: bool,
    as_json: bool,
    save: Path | None,
) -> int:
    """Save and print; the exit status says whether the figures may be used."""
    from pi_dynn.energy.runs import save_run
    from pi_dynn.energy.text import energy_log, energy_notes, energy_text

    if save is not None:
        save_run(save, measurement, results)
    if as_json:
        for result in results:
            click.echo(json.dumps(result.to_dict()))
    else:
        show(energy_log(results) if as_log else energy_text(results, markdown))
    for note in energy_notes(results):
        say(note)
    if measurement.recording.interrupted:
        return ExitStatus.INTERRUPTED
    return ExitStatus.OK if all(result.valid for result in results) else ExitStatus.MEASUREMENT_INVALID

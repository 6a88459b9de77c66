"""Options that use calibration records, and the records they name."""

from collections.abc import Callable
from pathlib import Path

import click

calibration_option = click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="RECORD",
    help="Thresholds of a calibration record, made for this bundle.",
)
DEFAULT_FOLDER = Path("calibration")  # where records are kept in a checkout


def budget_options(command: Callable) -> Callable:
    """--budget-ms, --budget-mj and --adaptive."""
    for option in (
        click.option("--adaptive", is_flag=True, help="Get cheaper while the board is hot or its battery low."),
        click.option(
            "--budget-mj", type=click.FloatRange(0, min_open=True), metavar="MJ", help="The same for mean energy."
        ),
        click.option(
            "--budget-ms",
            type=click.FloatRange(0, min_open=True),
            metavar="MS",
            help="Mean latency allowed; the record that fits is looked for in --calibration, file or folder.",
        ),
    ):
        command = option(command)
    return command


def check_planning(planning: dict, limits, batch_size: int) -> bool:
    """Whether thresholds shall adapt, taken out of `planning`, which is left with what names a record.

    Raises: click.UsageError for options that contradict each other.
    """
    adaptive = planning.pop("adaptive")
    planned = any(value is not None for value in planning.values())
    if planned and limits is not None:
        raise click.UsageError("--calibration and budgets bring thresholds of their own: leave the others out")
    if adaptive and not planned:
        raise click.UsageError("--adaptive moves along the curve of a record: give --calibration or a budget")
    if adaptive and batch_size > 1:
        raise click.UsageError("--adaptive changes thresholds between images: use it with --batch-size 1")
    return adaptive


def record_for(session, path: Path):
    """The record in a file, made for the session's bundle. Raises: CalibrationError."""
    from pi_dynn.calibrate.records import check_bundle, load_record

    record = load_record(path)
    check_bundle(record, session.bundle.sha256, path)
    return record


def chosen_plan(session, calibration: Path | None, budget_ms: float | None, budget_mj: float | None):
    """The record and operating point that the options name for live use, or None.

    Raises: click.UsageError for options that contradict each other, CalibrationError for no record that fits.
    """
    from pi_dynn.calibrate.records import best_within, find_records
    from pi_dynn.classify.run import plan_of

    if budget_ms is not None and budget_mj is not None:
        raise click.UsageError("give only one of --budget-ms and --budget-mj")
    if budget_ms is None and budget_mj is None:
        return None if calibration is None else plan_of(record_for(session, calibration))
    records = find_records(calibration or DEFAULT_FOLDER, session.bundle.sha256)
    budget, unit = (budget_ms, "s") if budget_ms is not None else (budget_mj, "J")
    return plan_of(*best_within(records, budget * 1e-3, unit))


def open_run(session, sources, settings, plan, adaptive: bool):
    """A classify run; one by a plan says on stderr when exits drift or thresholds move."""
    from pi_dynn.board import Board
    from pi_dynn.classify.run import ClassifyRun, PlannedRun, board_strain
    from pi_dynn.clock import PerfClock
    from pi_dynn.evaluate.text import drift_line, move_line

    if plan is None:
        return ClassifyRun(session, PerfClock(), sources, settings)
    board, blocks = Board(), session.manifest.blocks
    return PlannedRun(
        session,
        PerfClock(),
        sources,
        settings,
        plan,
        strain=(lambda: board_strain(board, battery_percent)) if adaptive else None,
        on_drift=lambda drift: click.echo(f"Note: {drift_line(drift, blocks)}", err=True),
        on_move=lambda point: click.echo(f"Note: {move_line(point, plan.record.cost_unit)}", err=True),
    )


def battery_percent() -> float | None:
    """Charge of the battery while it is not being filled, or None."""
    import psutil

    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return None if battery is None or battery.power_plugged else float(battery.percent)

"""Options that use calibration records, and the records they name."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from pi_dynn.cli.printing import show
from pi_dynn.errors import CalibrationError

if TYPE_CHECKING:
    from pi_dynn.calibrate.adapt import BoardState
    from pi_dynn.calibrate.drift import Drift
    from pi_dynn.calibrate.records import CalibrationRecord, OperatingPoint
    from pi_dynn.classify.cluster import ClusterSession
    from pi_dynn.classify.run import Plan
    from pi_dynn.data.sources import NamedImage
    from pi_dynn.errors import InputError
    from pi_dynn.records import Prediction
    from pi_dynn.runtime.session import Session

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
        click.option("--adaptive", is_flag=True, help="Lower the cost while the board is hot or its battery low."),
        click.option(
            "--budget-mj", type=click.FloatRange(0, min_open=True), metavar="MJ", help="The same for mean energy."
        ),
        click.option(
            "--budget-ms",
            type=click.FloatRange(0, min_open=True),
            metavar="MS",
            help="Greatest mean latency; thresholds are taken from the records in --calibration, a file or folder.",
        ),
    ):
        command = option(command)
    return command


def check_planning(
    planning: dict[str, Any], adaptive: bool, thresholds: list[float] | float | None, batch_size: int
) -> None:
    """Raises: click.UsageError for options that contradict each other; `planning` is what names a record."""
    planned = any(value is not None for value in planning.values())
    if planned and thresholds is not None:
        raise click.UsageError("--calibration and budgets bring thresholds of their own: leave the others out")
    if adaptive and not planned:
        raise click.UsageError("--adaptive moves along the curve of a record: give --calibration or a budget")
    if adaptive and batch_size > 1:
        raise click.UsageError("--adaptive changes thresholds between images: use it with --batch-size 1")


def record_for(session: "Session | ClusterSession", path: Path) -> "CalibrationRecord":
    """The record in a file, made for the session's bundle. Raises: CalibrationError."""
    from pi_dynn.calibrate.records import check_bundle, load_record

    record = load_record(path)
    check_bundle(record, session.bundle.sha256, path)
    return record


def chosen_plan(
    session: "Session | ClusterSession", calibration: Path | None, budget_ms: float | None, budget_mj: float | None
) -> "Plan | None":
    """The record and operating point that the options name for live use, or None.

    Raises: click.UsageError for options that contradict each other, CalibrationError for no record that fits.
    """
    from pi_dynn.calibrate.records import best_within, find_records
    from pi_dynn.classify.run import plan_of

    if budget_ms is not None and budget_mj is not None:
        raise click.UsageError("give only one of --budget-ms and --budget-mj")
    budget, unit = (budget_ms, "s") if budget_ms is not None else (budget_mj, "J")
    if budget is None:
        return None if calibration is None else plan_of(record_for(session, calibration))
    if calibration is None and not DEFAULT_FOLDER.is_dir():
        raise CalibrationError(
            f"a budget needs a calibration record, and there is no folder {str(DEFAULT_FOLDER)!r} here: name a record "
            "with --calibration, or make one with `pi-dynn calibrate`"
        )
    records = find_records(calibration or DEFAULT_FOLDER, session.bundle.sha256)
    return plan_of(*best_within(records, budget * 1e-3, unit))


def planned_answers(
    session: "Session | ClusterSession",
    images: Iterable["NamedImage"],
    plan: "Plan",
    adaptive: bool,
    batch_size: int,
    deadline_s: float | None,
    top: int,
) -> Iterator[tuple[str, "Prediction | InputError"]]:
    """Answers at the plan's thresholds; a note on stderr says when exits drift, or thresholds move."""
    from pi_dynn.board import Board
    from pi_dynn.calibrate.adapt import CurveWalker
    from pi_dynn.calibrate.drift import DriftWatch
    from pi_dynn.classify.run import adapted_answers, read_board_state, watched_for_drift
    from pi_dynn.clock import PerfClock
    from pi_dynn.evaluate.text import drift_line, move_line

    watch = DriftWatch(plan.point.exit_rates)

    def on_drift(drift: "Drift") -> None:
        show(f"Note: {drift_line(drift, session.manifest.blocks)}", err=True)

    def on_move(point: "OperatingPoint") -> None:
        watch.expect(point.exit_rates)
        show(f"Note: {move_line(point, plan.record.cost_unit)}", err=True)

    if not adaptive:
        answers = session.answer_stream(images, batch_size, plan.point.thresholds, deadline_s, top)
        return watched_for_drift(answers, watch, on_drift)
    board, walker = Board(), CurveWalker(plan.record.curve, plan.point.mean_cost)
    watch.expect(walker.point.exit_rates)

    def board_state() -> "BoardState":
        return read_board_state(board, battery_percent)

    here = cast("Session", session)  # --adaptive does not go with --cluster
    answers = adapted_answers(here, images, walker, board_state, PerfClock(), on_move, deadline_s, top)
    return watched_for_drift(answers, watch, on_drift)


def battery_percent() -> float | None:
    """Charge of the battery while it is not being filled, or None."""
    import psutil

    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return None if battery is None or battery.power_plugged else float(battery.percent)

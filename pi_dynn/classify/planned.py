"""Thresholds that move along the curve of a calibration record while a watch runs."""

from collections.abc import Callable, Iterable, Iterator

from pi_dynn.calibrate.adapt import BoardState, CurveWalker
from pi_dynn.calibrate.allowance import EnergyAllowance
from pi_dynn.calibrate.records import CalibrationRecord, OperatingPoint
from pi_dynn.classify.records import EnergyFigure
from pi_dynn.classify.run import Plan
from pi_dynn.clock import Clock
from pi_dynn.data.frames import Frame
from pi_dynn.errors import CalibrationError, InputError
from pi_dynn.power.estimate import PowerModel
from pi_dynn.records import Prediction


def joules_per_cost(record: CalibrationRecord, cores_share: float, model: PowerModel) -> float:
    """The energy of one unit of a record's cost; for seconds it is estimated by a board's power model.

    Raises: CalibrationError for costs in multiply-adds.
    """
    if record.cost_unit == "J":
        return 1.0
    if record.cost_unit == "s":
        return cores_share * (model.full_w - model.idle_w)
    raise CalibrationError(
        f"the record's costs are in {record.cost_unit!r}, which are no energy: calibrate with measured costs (--costs)"
    )


class PlannedThresholds:
    """The thresholds for the next answer: those of a plan, or cheaper ones of its record.

    With `board_state` they get cheaper while the board is hot or its battery low, which the callback `on_move`
    reports. With an `allowance` they are those that it pays for, and frames that it cannot pay for are not answered.

    Attributes: unpaid (how many that were).
    """

    def __init__(
        self,
        plan: Plan,
        clock: Clock,
        *,
        board_state: Callable[[], BoardState] | None = None,
        allowance: EnergyAllowance | None = None,
        on_move: Callable[[OperatingPoint], object] = lambda point: None,
    ) -> None:
        self._plan, self._clock, self._board_state, self._on_move = plan, clock, board_state, on_move
        self._walker = None if board_state is None else CurveWalker(plan.record.curve, plan.point.mean_cost)
        self._allowance, self._allowed = allowance, plan.point
        self.unpaid = 0

    def thresholds(self) -> list[float]:
        """For the next answer."""
        point = self._allowed
        if self._walker is not None and self._board_state is not None:
            if self._walker.watch(self._board_state(), self._clock.now_ns() * 1e-9):
                self._on_move(self._walker.point)
            point = min(point, self._walker.point, key=lambda point: point.mean_cost)
        return point.thresholds

    def affordable(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The frames that the allowance pays an answer for."""
        for frame in frames:
            if self._allowance is not None:
                point = self._allowance.point(self._clock.now_ns() * 1e-9)
                if point is None:
                    self.unpaid += 1
                    continue
                self._allowed = point
            yield frame

    def paid(
        self, answers: Iterable[tuple[Frame, Prediction | InputError]]
    ) -> Iterator[tuple[Frame, Prediction | InputError]]:
        """The same answers, each paid for."""
        for frame, answer in answers:
            if self._allowance is not None and isinstance(answer, Prediction):
                self._allowance.spend(self._plan.record.costs[answer.exit_index], self._clock.now_ns() * 1e-9)
            yield frame, answer

    def spent(self, scope: str) -> EnergyFigure | None:
        """What the answers took of the allowance, an estimate; None without one."""
        return None if self._allowance is None else EnergyFigure(self._allowance.spent_j, scope)

"""A dress rehearsal: real answers of a real session, but time and power are simulated.

Every different question is put to the session once; on the simulated clock its answer takes as long as
answers at that exit take here. Hours of trials pass in moments, and everything that comes out is SIMULATED.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pi_dynn.board import Board
from pi_dynn.clock import Clock, PerfClock
from pi_dynn.energy.protocol import EnergyParts
from pi_dynn.power.fake import TRANSFER_400_KHZ_S, FakeBus, FakeMeter, Ina219Chip, SimulatedClock, Switched, open_fake
from pi_dynn.records import Prediction
from pi_dynn.stats import median

if TYPE_CHECKING:
    from torch import Tensor

    from pi_dynn.runtime.session import Session

IDLE_POWER_W, ACTIVE_POWER_W = 2.18, 3.26
"""The published pair of a Pi 4."""
_TIMED_RUNS = 7
_NOISE_V = 20e-3 / 5.1 * 0.1  # 20 mW over a 0.1 ohm shunt at 5.1 V


def open_rehearsal_meter(clock: SimulatedClock) -> FakeMeter:
    """A simulated INA219 on a simulated Pi 4, as noisy and as slow to read as a real one."""
    chip = Ina219Chip(clock, Switched(IDLE_POWER_W), noise_v=_NOISE_V)
    return open_fake(clock=clock, bus=FakeBus(chip, clock, transfer_s=TRANSFER_400_KHZ_S))


@contextmanager
def simulated_work(meter: FakeMeter, power_w: float = ACTIVE_POWER_W) -> Iterator[None]:
    """Let the board draw `power_w` while the block runs, and idle after it."""
    meter.set_load_w(power_w)
    try:
        yield
    finally:
        meter.set_load_w(IDLE_POWER_W)


@contextmanager
def rehearsal_parts(board: Board, on_stage: Callable[[str, float, float], None] | None = None) -> Iterator[EnergyParts]:
    """Everything a measurement needs, on a simulated clock with a simulated meter."""
    clock = SimulatedClock()
    with open_rehearsal_meter(clock) as meter:
        parts = EnergyParts(meter, clock, board, lambda: simulated_work(meter))
        yield parts if on_stage is None else replace(parts, on_stage=on_stage)


def rehearsed_call(call: Callable[[], object], clock: Clock, real: Clock | None = None) -> Callable[[], None]:
    """Takes on `clock` what `call` takes in truth, timed a few times once."""
    real = real or PerfClock()
    times_s = []
    for _ in range(_TIMED_RUNS):
        start_ns = real.now_ns()
        call()
        times_s.append((real.now_ns() - start_ns) * 1e-9)
    duration_s = max(median(times_s), 1e-6)
    return lambda: clock.sleep(duration_s)


class RehearsedSession:
    """Stands in for `session`: the same answers, each taking on `clock` what its exit takes in truth."""

    def __init__(self, session: "Session", clock: Clock) -> None:
        self._session, self._clock = session, clock
        self._known: dict[tuple[int, tuple[float, ...]], Prediction] = {}
        self._exit_s: dict[int, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def classify(self, x: "Tensor", thresholds: Sequence[float] | None = None) -> Prediction:
        """The answer for the tensor `x`; tensors are told apart by identity and must stay alive."""
        key = id(x), tuple(self._session.resolve_thresholds(thresholds))
        if key not in self._known:
            answer = self._session.classify(x, thresholds)
            self._known[key] = replace(answer, latency_s=self._duration_s(answer.exit_index, x))
        self._clock.sleep(self._known[key].latency_s)
        return self._known[key]

    def _duration_s(self, exit_index: int, x: "Tensor") -> float:
        """What leaving at this exit takes, the same for every image: timed a few times, once."""
        if exit_index not in self._exit_s:
            forced = self._session.forced_thresholds(exit_index)
            self._exit_s[exit_index] = median([self._session.classify(x, forced).latency_s for _ in range(_TIMED_RUNS)])
        return self._exit_s[exit_index]

    def classify_many(
        self, images: Iterable["Tensor"], batch_size: int = 1, thresholds: Sequence[float] | None = None
    ) -> Iterator[Prediction]:
        """Answers one by one: a rehearsal gains nothing from batches."""
        for x in images:
            yield self.classify(x, thresholds)

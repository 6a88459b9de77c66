"""Simulated energy runs: real answers of a real session, with simulated time and power.

Each image is answered once by the session; on the simulated clock the answer takes as long as answers at its exit
take on this machine. Hours of trials take seconds, and all results are labelled SIMULATED.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pi_dynn.board import Board
from pi_dynn.clock import Clock, PerfClock
from pi_dynn.energy.protocol import EnergyParts
from pi_dynn.power.fake import FakeBus, FakeMeter, Ina219Chip, SimulatedClock, Switched, open_fake
from pi_dynn.records import Prediction
from pi_dynn.stats import median

if TYPE_CHECKING:
    import numpy as np

    from pi_dynn.runtime.session import Session

IDLE_POWER_W, ACTIVE_POWER_W = 2.18, 3.26
"""The published pair of a Pi 4."""
_TIMED_RUNS = 7
_NOISE_V = 20e-3 / 5.1 * 0.1  # 20 mW over a 0.1 ohm shunt at 5.1 V


def open_rehearsal_meter(clock: SimulatedClock) -> FakeMeter:
    """A simulated INA219 on a simulated Pi 4, with the noise of a real one.

    Transfers take no time: on the one clock of a simulation they would make the answers longer, which they do not
    on a board, where the sampler has a thread of its own.
    """
    chip = Ina219Chip(clock, Switched(IDLE_POWER_W), noise_v=_NOISE_V)
    return open_fake(clock=clock, bus=FakeBus(chip, clock))


@contextmanager
def simulated_work(meter: FakeMeter, power_w: float = ACTIVE_POWER_W) -> Iterator[None]:
    """Set the load to `power_w` in the body, and to idle power after it."""
    meter.set_load_w(power_w)
    try:
        yield
    finally:
        meter.set_load_w(IDLE_POWER_W)


@contextmanager
def rehearsal_parts(board: Board, on_stage: Callable[[str, float, float], None] | None = None) -> Iterator[EnergyParts]:
    """The parts of a measurement with a simulated clock and meter."""
    clock = SimulatedClock()
    with open_rehearsal_meter(clock) as meter:
        parts = EnergyParts(meter, clock, board, lambda: simulated_work(meter))
        yield parts if on_stage is None else replace(parts, on_stage=on_stage)


def rehearsed_call(call: Callable[[], object], clock: Clock, real: Clock | None = None) -> Callable[[], None]:
    """A function that sleeps on `clock` for the median real duration of `call`, timed once."""
    real = real or PerfClock()
    times_s = []
    for _ in range(_TIMED_RUNS):
        start_ns = real.now_ns()
        call()
        times_s.append((real.now_ns() - start_ns) * 1e-9)
    duration_s = max(median(times_s), 1e-6)
    return lambda: clock.sleep(duration_s)


class RehearsedSession:
    """The answers of `session`, each taking on `clock` the real duration of its exit."""

    def __init__(self, session: "Session", clock: Clock) -> None:
        self._session, self._clock = session, clock
        self._known: dict[tuple[int, tuple[float, ...]], Prediction] = {}
        self._exit_s: dict[int, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def classify(self, x: "np.ndarray", thresholds: Sequence[float] | None = None) -> Prediction:
        """The answer for the input `x`; inputs are distinguished by identity and must stay alive."""
        key = id(x), tuple(self._session.resolve_thresholds(thresholds))
        if key not in self._known:
            answer = self._session.classify(x, thresholds)
            self._known[key] = replace(answer, latency_s=self._duration_s(answer.exit_index, x))
        self._clock.sleep(self._known[key].latency_s)
        return self._known[key]

    def _duration_s(self, exit_index: int, x: "np.ndarray") -> float:
        """The duration of an answer at this exit, the median of a few runs, timed once."""
        if exit_index not in self._exit_s:
            forced = self._session.forced_thresholds(exit_index)
            self._exit_s[exit_index] = median([self._session.classify(x, forced).latency_s for _ in range(_TIMED_RUNS)])
        return self._exit_s[exit_index]

    def classify_many(
        self, images: Iterable["np.ndarray"], batch_size: int = 1, thresholds: Sequence[float] | None = None
    ) -> Iterator[Prediction]:
        """The answers one by one; batches would have no effect here."""
        for x in images:
            yield self.classify(x, thresholds)

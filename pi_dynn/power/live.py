"""The current power while a program runs, from the samples of the last minute instead of a whole trace."""

import threading
from collections import deque

from pi_dynn.clock import Clock
from pi_dynn.errors import PowerError
from pi_dynn.power.meter import UNUSABLE, EnergyMeter, EnergyReading, PowerSample

MEMORY_S = 60.0  # longer than any answer takes
_STALE_S, _STALE_PERIODS = 2.0, 10


class LivePower:
    """Polls a meter in a thread while used as a context manager; gives the power now and the energy of a window.

    Samples older than a minute are dropped. A meter that fails ends the sampling, and
    `failed` says why; power and energy are then None.
    """

    def __init__(self, meter: EnergyMeter, clock: Clock) -> None:
        self.info = meter.info
        self.failed: str | None = None
        self._meter, self._clock = meter, clock
        self._samples: deque[tuple[int, float]] = deque()  # when, watts
        self._counted: tuple[int, float] | None = None  # when, joules
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="live power", daemon=True)

    def __enter__(self) -> "LivePower":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=2.0)

    @property
    def power_w(self) -> float | None:
        """The newest sample; None if there is none, or none for so long that the meter must hang."""
        with self._lock:
            return self._samples[-1][1] if self._known() else None

    def energy_j(self, t0_ns: int, t1_ns: int) -> float | None:
        """The energy of the whole board from `t0_ns` to `t1_ns`; None if it is not known.

        It is the mean of the samples that lie in the window as a whole, times the duration. Samples across its edges
        would bring in the power of before or after, so that a window too short for its meter has no energy.
        """
        half_ns = round(0.5e9 * self.info.window_s)
        with self._lock:
            if not self._known():
                return None
            within = [power_w for t_ns, power_w in self._samples if t0_ns + half_ns <= t_ns <= t1_ns - half_ns]
        return sum(within) / len(within) * (t1_ns - t0_ns) * 1e-9 if within else None

    def _known(self) -> bool:
        """Whether the newest sample is new enough to say what power is now."""
        if not self._samples or self.failed is not None:
            return False
        age_s = (self._clock.now_ns() - self._samples[-1][0]) * 1e-9
        return age_s <= max(_STALE_S, _STALE_PERIODS * self.info.nominal_period_s)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.keep(self._meter.read())
            except PowerError as error:
                self.failed = str(error)
                return
            due_ns = self._meter.due_ns()
            wait_s = self.info.nominal_period_s if due_ns is None else (due_ns - self._clock.now_ns()) * 1e-9
            self._ended.wait(max(0.001, wait_s))

    def keep(self, sample: PowerSample | EnergyReading | None) -> None:
        """Add a sample, and drop those that are too old."""
        if sample is None or sample.flags & UNUSABLE:
            return
        if isinstance(sample, PowerSample):
            power_w = sample.power_w
        else:
            before, self._counted = self._counted, (sample.t_ns, sample.energy_j)
            if before is None or sample.t_ns <= before[0]:
                return
            power_w = (sample.energy_j - before[1]) / ((sample.t_ns - before[0]) * 1e-9)
        with self._lock:
            self._samples.append((sample.t_ns, power_w))
            while sample.t_ns - self._samples[0][0] > MEMORY_S * 1e9:
                self._samples.popleft()

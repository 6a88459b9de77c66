"""A session, a board and a meter on one simulated clock: an energy run without hardware and without waiting."""

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

from pi_dynn.board import BoardSnapshot
from pi_dynn.energy.measure import Candidate, measure_energy
from pi_dynn.energy.protocol import EnergyParts, EnergySettings, Measurement
from pi_dynn.power.fake import FakeBus, Ina219Chip, Ramp, SimulatedClock, Sum, Switched, open_fake
from pi_dynn.records import Prediction

IDLE_W = 2.18
NEVER = 2.0
QUICK = EnergySettings(n=60, trials=5, idle_s=1.0)


class SimulatedSession:
    """Three exits after blocks 2, 5 and 12; image `i` leaves at exit `exits_of[i]` unless forced.

    Each exit takes its time and draws its power. `on_answer(number)` is called before each answer.
    """

    def __init__(self, clock, load, *, latency_s=(0.010, 0.020, 0.040), power_w=(3.2, 3.2, 3.2)):
        self.clock, self.load, self.latency_s, self.power_w = clock, load, latency_s, power_w
        self.exits = 2
        self.engine, self.threads = "onednn", 4
        self.bundle = SimpleNamespace(sha256="0123abcd" * 8)
        self.manifest = SimpleNamespace(
            model="gfnet_12_192",
            precision="int8",
            blocks=[1, 4, 11],
            labels=["a", "b"],
            notes={"parameters": 4_100_000},
        )
        self.answered = 0
        self.on_answer: Callable[[int], None] = lambda number: None

    def forced_thresholds(self, exit_index: int) -> list[float]:
        return [0.0 if k == exit_index else NEVER for k in range(self.exits)]

    def classify(self, image: int, thresholds: list[float]) -> Prediction:
        self.on_answer(self.answered)
        self.answered += 1
        natural = thresholds == [0.5, 0.5]
        k = image % 3 if natural else (thresholds.index(0.0) if 0.0 in thresholds else 2)
        self.load.set_power(self.clock.now_ns() * 1e-9, self.power_w[k] - IDLE_W)
        self.clock.sleep(self.latency_s[k])
        return Prediction("a", image % 2, 0.9, k, self.manifest.blocks[k], 0.9, self.latency_s[k], [])

    def classify_many(self, images: Iterable[int], batch_size: int, thresholds: list[float]):
        for image in images:
            yield self.classify(image, thresholds)


@dataclass
class SimulatedBoard:
    """A Raspberry Pi 4 that tests can heat and throttle."""

    celsius: float | None = 50.0
    bits: int = 0
    governor: str = "performance"
    live: Callable[[], int | None] | None = None
    temperatures: list[float] = field(default_factory=list)

    def snapshot(self) -> BoardSnapshot:
        return BoardSnapshot(
            model="Raspberry Pi 4 Model B Rev 1.4",
            machine="aarch64",
            kernel="6.6",
            python="3.11.2",
            cores=4,
            governor=self.governor,
            frequency_hz=1.5e9,
            frequency_max_hz=1.5e9,
            temperature_c=self.celsius,
            throttle_bits=self.bits,
            memory_total_bytes=4 << 30,
            memory_available_bytes=3 << 30,
            load_average=0.1,
            other_load_percent=1.0,
            omp_num_threads=None,
        )

    def temperature_c(self) -> float | None:
        return self.temperatures.pop(0) if self.temperatures else self.celsius

    def throttle_bits(self) -> int:
        return self.bits

    def live_throttle_bits(self) -> int | None:
        return self.live() if self.live is not None else self.bits


class Bench:
    """The parts of one simulated run; a test may cause faults before `measure`."""

    def __init__(self, *, drift_w_per_s: float = 0.0, noise_v: float = 4e-4, **session) -> None:
        self.clock = SimulatedClock()
        self.work = Switched(0.0)
        load = Sum((Ramp(IDLE_W, drift_w_per_s), self.work))
        self.chip = Ina219Chip(self.clock, load, noise_v=noise_v)
        self.bus = FakeBus(self.chip, self.clock)
        self.meter = open_fake(clock=self.clock, bus=self.bus)
        self.board = SimulatedBoard()
        self.session = SimulatedSession(self.clock, self.work, **session)
        self.stages: list[str] = []

    @contextmanager
    def working(self):
        try:
            yield
        finally:
            self.work.set_power(self.clock.now_ns() * 1e-9, 0.0)

    def candidate(self, session=None, **changes) -> Candidate:
        plain = Candidate("early", session or self.session, tuple(range(6)), [0, 1, 0, 1, 0, 0], "NaSC", [0.5, 0.5])
        return replace(plain, **changes)

    def measure(self, settings: EnergySettings = QUICK, candidates=None) -> Measurement:
        parts = EnergyParts(
            self.meter,
            self.clock,
            self.board,
            self.working,
            lambda what, done_s, total_s: self.stages.append(what),
        )
        return measure_energy(parts, candidates or [self.candidate()], settings)

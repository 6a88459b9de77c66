"""The power of now, from samples given by hand."""

import pytest

from pi_dynn.power import EnergyMeter, EnergyReading, PowerSample, SampleFlags, open_meter
from pi_dynn.power.live import MEMORY_S, LivePower

MS = 1_000_000
WORK_W, IDLE_W = 5.0, 2.0


@pytest.fixture
def live(clock):
    """A live power on a simulated meter, whose thread is not started: each test adds its samples."""
    with open_meter("fake", clock=clock) as meter:
        yield LivePower(meter, clock)


def add(live, clock, *samples):
    for t_ms, power_w in samples:
        live.keep(PowerSample(round(t_ms * MS), power_w))
    clock.advance(max(t_ms for t_ms, _ in samples) * 1e-3 - clock.now_ns() * 1e-9)


def test_the_newest_sample_is_the_power_until_it_is_old(live, clock):
    assert live.power_w is None
    start_ms = clock.now_ns() / MS
    add(live, clock, (start_ms + 5, IDLE_W), (start_ms + 10, WORK_W))
    assert live.power_w == WORK_W
    clock.advance(1.9)
    assert live.power_w == WORK_W
    clock.advance(0.2)  # a meter that hangs has no power
    assert live.power_w is None
    assert live.energy_j(0, clock.now_ns()) is None


def test_the_energy_of_an_answer_is_that_of_the_samples_within(live, clock):
    start_ms = clock.now_ns() / MS
    half_ms = 500 * live.info.window_s
    edges = [(start_ms + 10 - half_ms, IDLE_W), (start_ms + 30 + half_ms, IDLE_W)]
    add(live, clock, edges[0], (start_ms + 15, WORK_W), (start_ms + 20, WORK_W), edges[1])
    energy_j = live.energy_j(round((start_ms + 10) * MS), round((start_ms + 30) * MS))
    assert energy_j == pytest.approx(0.020 * WORK_W)


def test_an_answer_between_two_samples_has_no_energy(live, clock):
    start_ms = clock.now_ns() / MS
    add(live, clock, (start_ms + 5, IDLE_W), (start_ms + 10, IDLE_W))
    assert live.energy_j(round((start_ms + 6) * MS), round((start_ms + 9) * MS)) is None
    assert live.energy_j(round((start_ms + 9) * MS), round((start_ms + 11) * MS)) is None  # only in part within


def test_a_counter_gives_the_power_between_its_readings(live, clock):
    live.keep(EnergyReading(100 * MS, 10.0))
    assert live.power_w is None
    live.keep(EnergyReading(300 * MS, 11.0))
    assert live.power_w == pytest.approx(5.0)
    live.keep(EnergyReading(300 * MS, 12.0))  # no time has passed
    assert live.power_w == pytest.approx(5.0)


def test_unusable_samples_and_old_ones_are_dropped(live, clock):
    live.keep(PowerSample(0, WORK_W, flags=SampleFlags.CLIPPED))
    live.keep(None)
    assert live.power_w is None
    live.keep(PowerSample(0, WORK_W))
    end_ns = round((MEMORY_S + 1) * 1e9)
    live.keep(PowerSample(end_ns, IDLE_W))
    clock.advance(MEMORY_S + 2)
    assert live.energy_j(0, end_ns + 10**9) == pytest.approx(IDLE_W * (MEMORY_S + 2))


class Failing(EnergyMeter):
    """A meter that fails at its second reading."""

    def __init__(self, clock, error):
        self.clock, self.error, self.read_times = clock, error, 0
        self.info = open_meter("fake", clock=clock).info

    def read(self):
        self.read_times += 1
        if self.read_times > 1:
            raise self.error
        return PowerSample(self.clock.now_ns(), WORK_W)


def test_a_meter_that_fails_has_no_power_and_says_why(clock):
    from pi_dynn.errors import MeterBusError

    with LivePower(Failing(clock, MeterBusError("unplugged")), clock) as live:
        live._thread.join(2.0)
    assert live.failed == "unplugged"
    assert live.power_w is None


def test_an_old_sample_beside_a_new_one_does_not_matter(live, clock):
    start_ms = clock.now_ns() / MS
    add(live, clock, (start_ms + 5, IDLE_W))
    add(live, clock, (start_ms + 2500, WORK_W))
    assert live.power_w == WORK_W

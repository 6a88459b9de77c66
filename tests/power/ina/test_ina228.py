"""The INA228 on a simulated chip: as a counter of joules, and as a power meter of 20 bits."""

import pytest

from pi_dynn.errors import InputError, MeterNotFound, PowerError
from pi_dynn.power import EnergyReading, SampleFlags, SteppedSampler
from pi_dynn.power.fake import Constant, FakeBus, Ina226Chip, Ina228Chip, Square
from pi_dynn.power.ina.ina226 import Ina226, Ina226Settings
from pi_dynn.power.ina.ina228 import Ina228, Ina228Settings


@pytest.fixture
def open_one(clock):
    def build(load, settings=None, **chip):
        settings = settings or Ina228Settings()
        bus = FakeBus(Ina228Chip(clock, load, **({"shunt_ohm": settings.shunt_ohm} | chip)), clock)
        return Ina228(bus, clock, settings, name="ina228")

    return build


def trace_of(meter, clock, duration_s=2.0):
    with SteppedSampler(meter, clock) as sampler:
        clock.sleep(duration_s)
    return sampler.trace()


def test_configuration_and_units():
    settings = Ina228Settings()
    assert settings.config == 0xB << 12 | 1 << 9 | 5 << 6 | 1
    assert settings.cycle_s == pytest.approx(4 * 1.136e-3)
    assert settings.range_a == pytest.approx(0.16384 / 0.015)
    assert settings.step_j == pytest.approx(51.2 * 312.5e-9 / 0.015)
    assert settings.faster().cycle_s == pytest.approx(134e-6)


@pytest.mark.parametrize("shunt_ohm", [0.015, 0.1, 0.002])
def test_joules_of_a_changing_load_are_counted_in_hardware(open_one, clock, shunt_ohm):
    load = Square(1.0, 5.0, 7.3e-3, duty=0.3)
    trace = trace_of(open_one(load, Ina228Settings(shunt_ohm)), clock)
    assert trace.power_w is None
    t0_ns, t1_ns = int(trace.t_ns[5]), int(trace.t_ns[-5])
    true_j = load.cumulative_j(t1_ns * 1e-9) - load.cumulative_j(t0_ns * 1e-9)
    step_j = 51.2 * 312.5e-9 / shunt_ohm
    assert trace.cumulative.between(t0_ns, t1_ns) == pytest.approx(true_j, rel=2e-3, abs=2 * step_j)


def test_what_is_read_late_is_not_lost(open_one, clock):
    """Half a second without a reading: a power meter would have to guess, a counter does not."""
    load = Square(1.0, 5.0, 0.2, duty=0.5)
    meter = open_one(load)
    readings = []
    for wait_s in (0.01, 0.5, 0.01, 0.7, 0.01):
        clock.sleep(wait_s)
        reading = meter.read()
        while reading is None:
            clock.sleep(1e-3)
            reading = meter.read()
        readings.append(reading)
    assert all(isinstance(reading, EnergyReading) for reading in readings)
    true_j = load.cumulative_j(readings[-1].t_ns * 1e-9) - load.cumulative_j(readings[0].t_ns * 1e-9)
    assert readings[-1].energy_j - readings[0].energy_j == pytest.approx(true_j, rel=0.02)


def test_as_a_power_meter_it_gives_volts_and_amperes(open_one, clock):
    trace = trace_of(open_one(Constant(3.0), Ina228Settings(counts=False)), clock)
    assert trace.power_w.mean() == pytest.approx(3.0, rel=1e-4)
    assert trace.voltage_v.mean() == pytest.approx(5.1, rel=1e-4)
    assert (trace.flags == 0).all()
    assert len(trace.t_ns) == pytest.approx(2.0 / 4.544e-3, rel=0.05)


def test_a_counter_shows_peaks_in_its_fast_conversions(open_one, clock):
    meter = open_one(Square(1.0, 20.0, 10e-3, duty=0.1))
    with meter.fast_conversions(), SteppedSampler(meter, clock) as sampler:
        clock.sleep(0.1)
        assert all(not isinstance(sample, EnergyReading) for sample in sampler._samples)
    assert meter.settings.counts
    assert isinstance(trace_of(meter, clock).counter_j.sum(), float)


def test_a_calibration_corrects_the_joules(open_one, clock):
    meter = open_one(Constant(3.0), Ina228Settings(gain=1 / 1.01), gain_error=0.01)
    trace = trace_of(meter, clock)
    seconds = (trace.t_ns[-1] - trace.t_ns[0]) * 1e-9
    assert trace.values[-1] - trace.values[0] == pytest.approx(3.0 * seconds, rel=1e-3)


def test_clipping_reversal_and_a_reset(open_one, clock):
    clipped = trace_of(open_one(Constant(10.0), Ina228Settings(0.1, counts=False)), clock)  # 2 A of 1.6
    assert (clipped.flags & int(SampleFlags.CLIPPED)).all()
    with pytest.raises(PowerError, match="flows backwards"):
        open_one(Constant(-3.0))
    meter = open_one(Constant(3.0), Ina228Settings(counts=False))
    with SteppedSampler(meter, clock) as sampler:
        clock.sleep(0.5)
        meter.bus.chip.brown_out()
        clock.sleep(1.0)
    assert ((sampler.trace().flags & int(SampleFlags.CHIP_RESET)) != 0).sum() == 1


def test_it_restores_the_chip_and_takes_no_other(open_one, clock):
    meter = open_one(Constant(3.0))
    meter.close()
    assert [meter.bus.chip.read_word(register) for register in (0, 1, 2, 0xC)] == [0, 0xFB68, 0x1000, 0x7FFF]
    with pytest.raises(MeterNotFound, match=r"is no INA228 \(an INA226\)"):
        Ina228(FakeBus(Ina226Chip(clock, Constant(3.0)), clock), clock, Ina228Settings(), name="ina228")
    with pytest.raises(MeterNotFound, match=r"is no INA226 \(an INA228\)"):
        Ina226(FakeBus(Ina228Chip(clock, Constant(3.0)), clock), clock, Ina226Settings(), name="ina226")


@pytest.mark.parametrize("changes", [{"shunt_ohm": 0.0}, {"averages": 3}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(InputError):
        Ina228Settings(**changes)

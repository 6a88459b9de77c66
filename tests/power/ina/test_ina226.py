"""The INA226 and INA260 on simulated chips."""

import pytest

from pi_dynn.errors import InputError, MeterNotFound, PowerError
from pi_dynn.power import SampleFlags, SteppedSampler
from pi_dynn.power.certificate import ShuntCertificate, calibrated
from pi_dynn.power.fake import Constant, FakeBus, Ina219Chip, Ina226Chip, Square, Switched
from pi_dynn.power.ina.ina219 import Ina219
from pi_dynn.power.ina.ina226 import Ina226, Ina226Settings, Ina260, Ina260Settings
from pi_dynn.power.ina.pairs import open_pair_chip


@pytest.fixture
def open_one(clock):
    """Open an INA226 on a chip with this load, or an INA260 with `shunt_ohm=None`."""

    def build(load, shunt_ohm=0.02, settings=None, **chip):
        bus = FakeBus(Ina226Chip(clock, load, shunt_ohm=shunt_ohm, **chip), clock)
        if shunt_ohm is None:
            return Ina260(bus, clock, settings or Ina260Settings(), name="ina260")
        return Ina226(bus, clock, settings or Ina226Settings(shunt_ohm), name="ina226")

    return build


def trace_of(meter, clock, duration_s=1.0):
    with SteppedSampler(meter, clock) as sampler:
        clock.sleep(duration_s)
    return sampler.trace()


def test_configuration_words_and_times():
    assert Ina226Settings().config == 0x4000 | 1 << 9 | 4 << 3 | 7
    assert Ina260Settings(averages=16).config == 0x6000 | 2 << 9 | 4 << 3 | 7
    assert Ina226Settings().cycle_s == pytest.approx(4.96e-3)
    assert Ina226Settings().current_s / Ina226Settings().cycle_s == pytest.approx(0.887, abs=1e-3)
    assert Ina226Settings().faster().cycle_s == pytest.approx(280e-6)
    assert Ina226Settings(0.1).range_a == pytest.approx(0.8192, rel=1e-3)
    assert Ina260Settings().range_a == 15.0


@pytest.mark.parametrize("shunt_ohm", [0.1, 0.02, 0.002, None])
def test_power_of_a_constant_load(open_one, clock, shunt_ohm):
    trace = trace_of(open_one(Constant(3.0), shunt_ohm), clock)
    step_w = (1.25e-3 if shunt_ohm is None else 2.5e-6 / shunt_ohm) * 5.1
    assert trace.power_w.mean() == pytest.approx(3.0, abs=step_w)
    assert trace.voltage_v.mean() == pytest.approx(5.1, abs=1.25e-3)
    assert len(trace.t_ns) == pytest.approx(1.0 / 4.96e-3, rel=0.06)
    assert (trace.flags == 0).all()


@pytest.mark.parametrize("averages", [1, 4, 16])
def test_a_changing_load_is_integrated_over_the_whole_of_a_sample(open_one, clock, averages):
    load = Square(1.0, 5.0, 7.3e-3, duty=0.3)
    meter = open_one(load, settings=Ina226Settings(0.02, averages=averages))
    trace = trace_of(meter, clock, 5.0)
    t0_ns, t1_ns = int(trace.t_ns[5]), int(trace.t_ns[-5])
    true_j = load.cumulative_j(t1_ns * 1e-9) - load.cumulative_j(t0_ns * 1e-9)
    assert trace.cumulative.between(t0_ns, t1_ns) == pytest.approx(true_j, rel=0.01)


def test_samples_are_stamped_at_the_middle_of_their_window(open_one, clock):
    load = Switched(2.0)
    meter = open_one(load)
    load.set_power(clock.now_ns() * 1e-9 + 0.5, 4.0)
    step_s = clock.now_ns() * 1e-9 + 0.5
    trace = trace_of(meter, clock)
    first = trace.t_ns[trace.power_w > 3.0][0] * 1e-9
    assert abs(first - step_s) < 0.5 * 4.96e-3 + 0.5e-3


def test_it_clips_at_the_end_of_its_one_range(open_one, clock):
    trace = trace_of(open_one(Constant(6.0), shunt_ohm=0.1), clock)  # 1.2 A, of 0.8
    assert (trace.flags & int(SampleFlags.CLIPPED)).all()
    meter = open_one(Constant(3.0))
    assert not meter.widen_range()


def test_reversed_leads_are_refused(open_one):
    with pytest.raises(PowerError, match="flows backwards"):
        open_one(Constant(-3.0))


def test_a_reset_is_seen_and_mended(open_one, clock):
    meter = open_one(Constant(3.0))
    with SteppedSampler(meter, clock) as sampler:
        clock.sleep(0.5)
        meter.bus.chip.brown_out()
        clock.sleep(3.0)
    assert ((sampler.trace().flags & int(SampleFlags.CHIP_RESET)) != 0).sum() == 1
    assert meter.bus.chip.read_word(0) == Ina226Settings().config


def test_closing_restores_the_configuration(open_one, clock):
    chip = Ina226Chip(clock, Constant(3.0))
    chip.write_word(0, 0x4727)
    before = chip.read_word(0)
    meter = Ina226(FakeBus(chip, clock), clock, Ina226Settings(), name="ina226")
    assert chip.read_word(0) != before
    meter.close()
    assert chip.read_word(0) == before


def test_each_driver_takes_its_own_chip_only(clock):
    ina226, ina260 = (Ina226Chip(clock, Constant(3.0), shunt_ohm=ohm) for ohm in (0.1, None))
    ina219 = Ina219Chip(clock, Constant(3.0))
    with pytest.raises(MeterNotFound, match=r"is no INA226 \(an INA260\)"):
        Ina226(FakeBus(ina260, clock), clock, Ina226Settings(), name="ina226")
    with pytest.raises(MeterNotFound, match=r"is no INA260 \(it does not name itself\)"):
        Ina260(FakeBus(ina219, clock), clock, Ina260Settings(), name="ina260")
    with pytest.raises(MeterNotFound, match=r"is no INA219 \(an INA226\)"):
        Ina219(FakeBus(ina226, clock), clock)
    assert (ina226.read_word(0), ina260.read_word(0), ina219.read_word(0)) == (0x4127, 0x6127, 0x399F)  # untouched


def test_a_certificate_corrects_it(clock, open_one, tmp_path):
    record = ShuntCertificate("no. 1", 0.02, 1.01, 1.01, 1.0, "meter", "2026-01-31", uncertainty=0.003)
    record.save(tmp_path / "c.json")
    settings = Ina226Settings(**calibrated(tmp_path / "c.json", None, 0.1))
    trace = trace_of(open_one(Constant(3.0), settings=settings), clock)
    assert trace.power_w.mean() == pytest.approx(1.01 * 3.0, rel=1e-3)
    assert (settings.accuracy.shunt, settings.accuracy.gain) == (0.003, 0.0)


@pytest.mark.parametrize("changes", [{"shunt_ohm": 0.0}, {"averages": 3}, {"rephase_every": -1}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(InputError):
        Ina226Settings(**changes)


def test_a_reset_brings_back_the_values_of_power_up(clock):
    chip = Ina226Chip(clock, Constant(3.0), shunt_ohm=0.1)
    chip.write_word(0, 0x4FFF)
    assert chip.read_word(0) == 0x4FFF
    chip.write_word(0, 0x8000)
    assert chip.read_word(0) == 0x4127


def test_without_an_address_chips_of_another_kind_do_not_count(clock, tmp_path, monkeypatch):
    asked = []

    def only_one(bus, root, is_other):
        asked.extend(is_other(FakeBus(chip, clock)) for chip in chips)
        raise MeterNotFound("asked enough")

    chips = [Ina226Chip(clock, Constant(3.0), shunt_ohm=ohm) for ohm in (0.1, None)]  # the second is an INA260
    monkeypatch.setattr("pi_dynn.power.ina.i2c_scan.only_meter_address", only_one)
    with pytest.raises(MeterNotFound, match="asked enough"):
        open_pair_chip(Ina226, clock, tmp_path, 1, None, Ina226Settings())
    assert asked == [False, True]

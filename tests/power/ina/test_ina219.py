"""The driver on a simulated chip: words in, physics out, and every way a chip can go wrong."""

import errno
import os

import numpy as np
import pytest

from pi_dynn.errors import InputError, MeterBusError, MeterNotFound, PowerError
from pi_dynn.power import SampleFlags, SteppedSampler, check_trace
from pi_dynn.power.fake import Constant, FakeBus, Ina219Chip, Ramp, Square, Switched
from pi_dynn.power.ina.ina219 import BUS, CALIBRATION, CONFIG, Ina219
from pi_dynn.power.ina.ina219_settings import Ina219Settings

POWER_ON = 0x399F


# What is written


def test_default_configuration_word():
    settings = Ina219Settings()
    assert settings.config == 0x19DF  # 16 V, /8, bus 12 bit, shunt 8 samples, continuous
    assert 1 / settings.cycle_s == pytest.approx(208.7, abs=0.1)
    assert settings.shunt_s / settings.cycle_s == pytest.approx(0.889, abs=1e-3)


@pytest.mark.parametrize(
    ("max_current_a", "gain_code", "limit"), [(0.4, 0, 4000), (0.41, 1, 8000), (1.6, 2, 16000), (3.2, 3, 32000)]
)
def test_the_finest_gain_that_holds_the_current(max_current_a, gain_code, limit):
    settings = Ina219Settings(max_current_a=max_current_a)
    assert settings.config >> 11 & 3 == gain_code
    assert settings.shunt_limit == limit


@pytest.mark.parametrize("shunt_ohm", [0.002, 0.01, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_calibration_word_is_even_and_in_range(shunt_ohm, share):
    word = Ina219Settings(shunt_ohm, max_current_a=share * 0.32 / shunt_ohm).calibration
    assert word % 2 == 0
    assert 2 <= word <= 0xFFFE


def test_calibration_word_of_the_datasheet_rule():
    settings = Ina219Settings(0.1, max_current_a=2.0)
    assert settings.calibration == int(0.04096 / (2.0 / 32767 * 0.1)) & 0xFFFE == 6710


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shunt_ohm": 0.0}, "more than 0 ohm"),
        ({"shunt_ohm": -0.1}, "more than 0 ohm"),
        ({"shunt_ohm": float("nan")}, "more than 0 ohm"),
        ({"max_current_a": 3.3}, "smaller shunt"),
        ({"max_current_a": 0.0}, "0 to 0.32 V"),
        ({"shunt_averages": 3}, "averages 1, 2, 4"),
        ({"bus_range_v": 24}, "16 or 32"),
        ({"gain": 0.0}, "gain correction"),
        ({"rephase_every": -1}, "rephase_every"),
    ],
)
def test_impossible_settings_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        Ina219Settings(**options)


# What is read


@pytest.mark.parametrize("shunt_averages", [1, 8, 128])
@pytest.mark.parametrize(("shunt_ohm", "bus_range_v", "bus_v"), [(0.1, 16, 5.1), (0.02, 16, 5.0), (0.01, 32, 19.0)])
def test_power_of_a_constant_load(open_chip, next_sample, shunt_averages, shunt_ohm, bus_range_v, bus_v):
    meter = open_chip(
        Constant(6.12),
        chip={"bus_v": bus_v},
        shunt_ohm=shunt_ohm,
        bus_range_v=bus_range_v,
        shunt_averages=shunt_averages,
    )
    reading = next_sample(meter)
    step_w = 80e-6 / shunt_ohm * bus_v  # a constant load shows the steps of the 12-bit converter
    assert reading.power_w == pytest.approx(6.12, abs=step_w / 2 + 1e-9)
    assert reading.voltage_v == pytest.approx(bus_v)
    assert reading.power_w == pytest.approx(reading.voltage_v * reading.current_a)
    assert reading.flags == SampleFlags.NONE


def test_gain_correction_scales_the_current(open_chip, next_sample):
    plain = next_sample(open_chip(Constant(3.06), chip={"gain_error": -0.02}))
    corrected = next_sample(open_chip(Constant(3.06), chip={"gain_error": -0.02}, gain=1 / 0.98))
    assert plain.power_w == pytest.approx(3.06 * 0.98, rel=1e-3)
    assert corrected.power_w == pytest.approx(3.06, rel=1e-3)


def test_a_stale_register_is_not_a_sample(open_chip, next_sample, clock):
    meter = open_chip()
    next_sample(meter)
    assert meter.read() is None
    clock.sleep(0.5 * meter.info.nominal_period_s)
    assert meter.read() is None
    clock.sleep(0.6 * meter.info.nominal_period_s)
    assert meter.read() is not None


@pytest.mark.parametrize("shunt_averages", [8, 128])
@pytest.mark.parametrize("oscillator", [0.95, 1.0, 1.1])
def test_samples_are_stamped_at_the_middle_of_their_window(open_chip, sample, shunt_averages, oscillator):
    # On a ramp the mean over a window is the value at its middle: the power shows when it was measured.
    meter = open_chip(Ramp(1.0, 0.5), chip={"oscillator": oscillator, "noise_v": 50e-6}, shunt_averages=shunt_averages)
    trace = sample(meter, 6.0)
    late_s = trace.t_ns * 1e-9 - (trace.power_w - 1.0) / 0.5
    cycle_s = meter.info.nominal_period_s
    assert abs(np.median(late_s)) < 0.12 * cycle_s  # half a cycle, if it were stamped when read
    assert len(trace.t_ns) > 0.8 * 6.0 / (cycle_s * oscillator)


def test_the_first_conversion_after_a_new_configuration_is_dropped(clock, next_sample):
    chip = Ina219Chip(clock, Square(1.0, 4.0, 1.0, duty=0.1, t0_s=0.0))
    chip.write_word(CONFIG, 0x1FFF)  # someone else's settings: 128 averages, 68 ms
    clock.sleep(0.139)  # the load has been at 4 W until 0.1 s
    meter = Ina219(FakeBus(chip, clock), clock)
    opened_ns = 139_000_000
    reading = next_sample(meter)
    assert reading.t_ns > opened_ns + meter.settings.cycle_s * 1e9
    assert reading.power_w == pytest.approx(1.0, abs=0.01)


# What goes wrong


def test_a_clipped_sample_is_flagged_though_nothing_overflowed(open_chip, next_sample):
    meter = open_chip(Constant(5.0), max_current_a=0.8)  # 0.98 A
    reading = next_sample(meter)
    assert not meter.bus.chip.read_word(BUS) & 1
    assert reading.flags == SampleFlags.CLIPPED
    assert reading.current_a == pytest.approx(0.8)


def test_a_clipped_bus_voltage_is_flagged(open_chip, next_sample):
    reading = next_sample(open_chip(Constant(5.0), chip={"bus_v": 19.0}, bus_range_v=16))
    assert reading.flags & SampleFlags.CLIPPED


def test_math_overflow_spoils_only_the_registers_we_do_not_use(open_chip, next_sample):
    meter = open_chip(Constant(15.3), max_current_a=2.9)  # 3 A: inside the gain, beyond the calibration
    reading = next_sample(meter)
    assert reading.flags == SampleFlags.OVERFLOW
    assert reading.power_w == pytest.approx(15.3, rel=1e-3)


def test_reversed_leads_are_refused_in_words(open_chip):
    with pytest.raises(PowerError, match=r"backwards \(-0\.5.*swap VIN\+ and VIN-"):
        open_chip(Constant(-3.0))


def test_current_that_turns_round_later_is_flagged(open_chip, next_sample, clock):
    meter = open_chip(Switched(2.0))
    meter.set_load_w(-2.0)
    clock.sleep(3 * meter.info.nominal_period_s)
    assert next_sample(meter).flags & SampleFlags.REVERSED


def test_the_worst_offset_of_an_idle_chip_is_not_reversed(open_chip, next_sample):
    assert next_sample(open_chip(Constant(0.0), chip={"offset_v": -200e-6})).flags == SampleFlags.NONE


def test_a_reset_is_seen_at_the_next_sample_and_put_right(open_chip, next_sample, clock):
    meter = open_chip()
    next_sample(meter)
    meter.chip.brown_out()
    reading = next_sample(meter)
    assert reading.flags & SampleFlags.CHIP_RESET
    assert meter.chip.read_word(CONFIG) == meter.settings.config
    assert meter.chip.read_word(CALIBRATION) == meter.settings.calibration
    after = next_sample(meter)
    assert after.flags == SampleFlags.NONE
    assert after.power_w == pytest.approx(3.0, abs=5e-3)
    assert after.t_ns - reading.t_ns > 1.5e9 * meter.settings.cycle_s  # what was converted during the repair is dropped


def test_a_reset_without_a_load_is_seen_too(open_chip, sample):
    meter = open_chip(Constant(0.0))
    meter.chip.brown_out()
    trace = sample(meter, 3.0)
    assert (trace.flags & SampleFlags.CHIP_RESET).any()


@pytest.mark.parametrize("code", [errno.EREMOTEIO, errno.EIO, errno.ETIMEDOUT])
def test_a_lost_transfer_is_repeated_and_counted(open_chip, sample, code):
    meter = open_chip(bus={"fails": lambda transfer: code if transfer % 100 == 99 else 0})
    trace = sample(meter, 1.0)
    assert trace.retries > 3
    assert trace.error is None
    assert trace.power_w == pytest.approx(3.0, abs=5e-3)


def test_an_unplugged_chip_ends_in_an_error_with_its_cause(open_chip, next_sample):
    meter = open_chip()
    meter.bus.unplug()
    before = meter.bus.transfers
    with pytest.raises(MeterBusError, match="failed 4 times") as caught:
        next_sample(meter)
    assert caught.value.__cause__.errno == errno.EREMOTEIO
    assert meter.bus.transfers - before == 4  # bounded


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.EREMOTEIO, MeterNotFound, "nothing answers"),
        (errno.ENXIO, MeterNotFound, "nothing answers"),
        (errno.EBUSY, MeterBusError, "kernel driver.*'hwmon'"),
        (errno.EPERM, MeterBusError, "check the leads"),
    ],
)
def test_opening_a_silent_bus_says_what_to_do(open_chip, code, kind, words):
    with pytest.raises(kind, match=words) as caught:
        open_chip(bus={"fails": lambda transfer: code})
    assert "\n" not in str(caught.value)


def test_another_chip_is_left_alone(clock):
    class Stranger:
        name, writes = "bus", 0

        def read_word(self, register):
            return 0xC011

        def write_word(self, register, value):
            self.writes += 1

        def close(self):
            pass

    bus = Stranger()
    with pytest.raises(MeterNotFound, match="no INA219"):
        Ina219(bus, clock)
    assert bus.writes == 0


def test_a_chip_that_keeps_nothing_is_no_ina219(open_chip, monkeypatch):
    monkeypatch.setattr(Ina219Chip, "write_word", lambda self, register, value: None)
    with pytest.raises(MeterNotFound, match="does not keep"):
        open_chip()


def test_a_chip_that_never_converts_is_named(open_chip, monkeypatch):
    monkeypatch.setattr(Ina219Chip, "_convert", lambda self: None)
    with pytest.raises(MeterBusError, match="does not convert"):
        open_chip()


# Closing


def test_closing_puts_the_chip_back_as_it_was(clock):
    chip = Ina219Chip(clock, Constant(1.0))
    chip.write_word(CALIBRATION, 0x1234)
    chip.write_word(CONFIG, 0x1FFF)
    bus = FakeBus(chip, clock)
    with Ina219(bus, clock) as meter:
        assert chip.read_word(CONFIG) == meter.settings.config
    assert (chip.read_word(CONFIG), chip.read_word(CALIBRATION)) == (0x1FFF, 0x1234)
    assert bus.closed
    meter.close()


def test_closing_an_unplugged_chip_is_quiet(open_chip):
    meter = open_chip()
    meter.bus.unplug()
    meter.close()
    assert meter.bus.closed


def test_a_failed_opening_closes_the_bus(clock):
    bus = FakeBus(Ina219Chip(clock, Constant(-3.0)), clock)
    with pytest.raises(PowerError):
        Ina219(bus, clock)
    assert bus.closed
    assert bus.chip.read_word(CONFIG) == POWER_ON


def test_a_forked_child_does_not_touch_the_chip(open_chip, monkeypatch):
    meter = open_chip()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    meter.close()
    assert meter.chip.read_word(CONFIG) == meter.settings.config


# Re-phasing


def test_rephasing_spreads_the_samples_over_every_phase(open_chip, sample):
    def phases(**settings):
        trace = sample(open_chip(**settings), 5.0)
        return trace.t_ns % 4_792_000 / 4_792_000

    steady, spread = phases(rephase_every=0), phases(rephase_every=16)
    assert len(np.unique(np.floor(10 * spread))) == 10
    assert len(np.unique(np.floor(10 * steady))) <= 2


def test_rephasing_leaves_no_gap_that_would_invalidate(open_chip, sample):
    trace = sample(open_chip(rephase_every=16), 5.0)
    assert np.diff(trace.t_ns).max() * 1e-9 < 3 * trace.info.nominal_period_s


def test_polling_too_early_waits_for_the_expected_moment(open_chip, next_sample, clock):
    meter = open_chip(rephase_every=0)
    next_sample(meter)
    assert meter.read() is None
    assert meter.due_ns() - clock.now_ns() > 0.8e9 * meter.settings.cycle_s


def test_a_slow_chip_at_the_datasheets_limit_is_still_valid(open_chip, sample):
    for oscillator in (0.9, 1.1):
        trace = sample(open_chip(chip={"oscillator": oscillator}), 5.0)
        assert check_trace(trace).invalid_reasons == ()


def test_one_sample_costs_few_transfers(open_chip, sample):
    meter = open_chip()
    before = meter.bus.transfers
    trace = sample(meter, 5.0)
    # bus until ready, shunt, power: 3 needed, the rest are polls that came early
    assert (meter.bus.transfers - before) / len(trace.t_ns) < 5.0


class OtherChip:
    """The registers of another chip; it remembers what was written to it."""

    name = "simulated I2C bus"

    def __init__(self, registers: dict[int, int], otherwise: int | None = 0):
        self.registers, self.otherwise, self.written = registers, otherwise, []

    def read_word(self, register: int) -> int:
        word = self.registers.get(register, self.otherwise)
        if word is None:
            raise OSError(errno.EREMOTEIO, "no acknowledge")
        return word

    def write_word(self, register: int, value: int) -> None:
        self.written.append((register, value))

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("registers", "what"),
    [
        ({0: 0x4127, 0xFE: 0x5449, 0xFF: 0x2260}, "an INA226"),
        ({0: 0x6127, 0xFE: 0x5449, 0xFF: 0x2270}, "an INA260"),
        ({0: 0x7127, 0xFE: 0x5449, 0xFF: 0x3220}, "an INA3221"),
        ({0: 0x0000, 1: 0xFB68, 0x3E: 0x5449, 0x3F: 0x2281}, "an INA228"),
        ({0: 0x1234, 0xFE: 0x5449, 0xFF: 0x1230}, "number 0x1230"),
        # A PCA9685, whose registers of one byte read twice: MODE1, MODE2, SUBADR1 to 3, ALLCALLADR.
        ({0: 0x1111, 1: 0x0404, 2: 0xE2E2, 3: 0xE4E4, 4: 0xE8E8, 5: 0xE0E0}, "not its shunt voltage"),
        ({0: 0x8583}, "register 0 reads 0x8583"),  # an ADS1115
    ],
)
def test_another_chip_is_known_by_reading_and_never_written_to(clock, registers, what):
    bus = OtherChip(registers)
    with pytest.raises(MeterNotFound, match=what):
        Ina219(bus, clock)
    assert bus.written == []


def test_fast_conversions_show_peaks_and_the_settings_come_back(open_chip, clock):
    meter = open_chip(Square(2.0, 10.0, 2e-3, duty=0.25))
    config = meter.chip.read_word(0)
    with meter.fast_conversions(), SteppedSampler(meter, clock) as sampler:
        clock.sleep(0.2)
    assert sampler.trace().largest_current_a == pytest.approx(10.0 / 5.1, rel=0.05)
    assert meter.chip.read_word(0) == config
    with SteppedSampler(meter, clock) as sampler:
        clock.sleep(0.2)
    trace = sampler.trace()
    assert trace.power_w.mean() == pytest.approx(4.0, rel=0.02)
    assert trace.largest_current_a < 6.0 / 5.1


def test_the_range_is_widened_once(open_chip, next_sample):
    meter = open_chip(Constant(9.0), max_current_a=0.8)
    assert meter.info.range_a == pytest.approx(0.8)
    assert meter.widen_range()
    assert meter.info.range_a == pytest.approx(3.2)
    assert next_sample(meter).power_w == pytest.approx(9.0, rel=0.01)
    assert not meter.widen_range()


def test_the_range_is_in_corrected_amperes():
    assert Ina219Settings(shunt_ohm=0.1, gain=0.9).range_a == pytest.approx(3.2 * 0.9)

"""The simulated chip, word by word, against the datasheet. Numbers here are worked out by hand."""

import pytest

from pi_dynn.power.fake import Constant, Ina219Chip, SimulatedClock, Square
from pi_dynn.power.fake.chip import BUS, CALIBRATION, CONFIG, CURRENT, POWER, SHUNT

READY, OVERFLOW = 0b10, 0b01
EIGHT_AVERAGES = 0x19DF  # 16 V, gain /8, bus 12 bit, shunt 8 samples, both continuous: 4.26 + 0.532 ms
CYCLE_S = 4.792e-3


@pytest.fixture
def clock():
    return SimulatedClock()


def chip_with(clock, power_w=3.06, config=EIGHT_AVERAGES, calibration=4096, **options):
    chip = Ina219Chip(clock, Constant(power_w), **options)
    chip.write_word(CALIBRATION, calibration)
    chip.write_word(CONFIG, config)
    return chip


def test_words_after_power_on(clock):
    chip = Ina219Chip(clock, Constant(3.0))
    assert [chip.read_word(register) for register in range(6)] == [0x399F, 0, 0, 0, 0, 0]


def test_words_of_a_known_load(clock):
    chip = chip_with(clock)  # 3.06 W at 5.1 V: 0.6 A, 60 mV over 0.1 ohm
    clock.sleep(1.01 * CYCLE_S)
    assert chip.read_word(SHUNT) == 6000
    assert chip.read_word(BUS) == 1275 << 3 | READY
    assert chip.read_word(CURRENT) == 6000
    assert chip.read_word(POWER) == 6000 * 1275 // 5000


def test_ready_after_one_cycle_and_not_before(clock):
    chip = chip_with(clock)
    clock.sleep(0.999 * CYCLE_S)
    assert not chip.read_word(BUS) & READY
    clock.sleep(0.002 * CYCLE_S)
    assert chip.read_word(BUS) & READY


@pytest.mark.parametrize(
    ("code", "shunt_s"),
    [
        (0x0, 84e-6), (0x1, 148e-6), (0x2, 276e-6), (0x3, 532e-6), (0x8, 532e-6), (0x9, 1.06e-3), (0xA, 2.13e-3),
        (0xB, 4.26e-3), (0xC, 8.51e-3), (0xD, 17.02e-3), (0xE, 34.05e-3), (0xF, 68.10e-3),
    ],
)  # fmt: skip
def test_conversion_times_of_table_5(clock, code, shunt_s):
    chip = chip_with(clock, config=0x1807 | 0x3 << 7 | code << 3)
    clock.sleep(0.99 * (shunt_s + 532e-6))
    assert not chip.read_word(BUS) & READY
    clock.sleep(0.02 * (shunt_s + 532e-6))
    assert chip.read_word(BUS) & READY


def test_only_the_power_register_clears_ready(clock):
    chip = chip_with(clock)
    clock.sleep(1.01 * CYCLE_S)
    for register in (SHUNT, CURRENT, CONFIG, CALIBRATION, BUS):
        chip.read_word(register)
    assert chip.read_word(BUS) & READY
    chip.read_word(POWER)
    assert not chip.read_word(BUS) & READY


def test_writing_the_mode_clears_ready_and_starts_over(clock):
    chip = chip_with(clock)
    clock.sleep(1.9 * CYCLE_S)
    chip.write_word(CONFIG, EIGHT_AVERAGES)
    clock.sleep(0.9 * CYCLE_S)
    assert not chip.read_word(BUS) & READY


def test_registers_are_stale_between_conversions(clock):
    chip = Ina219Chip(clock, Square(2.0, 4.0, 2 * CYCLE_S, t0_s=0.0))
    chip.write_word(CONFIG, EIGHT_AVERAGES)
    clock.sleep(1.01 * CYCLE_S)
    first = chip.read_word(SHUNT)
    clock.sleep(0.5 * CYCLE_S)
    assert chip.read_word(SHUNT) == first
    clock.sleep(0.5 * CYCLE_S)
    assert chip.read_word(SHUNT) < 0.6 * first


@pytest.mark.parametrize(("gain_code", "limit"), [(0, 4000), (1, 8000), (2, 16000), (3, 32000)])
@pytest.mark.parametrize("sign", [1, -1])
def test_shunt_saturates_at_each_gain(clock, gain_code, limit, sign):
    chip = chip_with(clock, power_w=sign * 50.0, config=0x01DF | gain_code << 11)
    clock.sleep(1.01 * CYCLE_S)
    word = chip.read_word(SHUNT)
    assert (word - 0x10000 if word & 0x8000 else word) == sign * limit


def test_clipped_without_overflow_and_overflow_without_clipping(clock):
    clipped = chip_with(clock, power_w=50.0, calibration=4096)
    clock.sleep(1.01 * CYCLE_S)
    assert clipped.read_word(SHUNT) == 32000
    assert not clipped.read_word(BUS) & OVERFLOW
    overflowed = chip_with(clock, power_w=10.0, calibration=0xFFFE)  # 19608 x 65534 / 4096 is beyond 16 bits
    clock.sleep(1.01 * CYCLE_S)
    assert overflowed.read_word(SHUNT) == 19608
    assert overflowed.read_word(BUS) & OVERFLOW


def test_negative_words_are_twos_complement(clock):
    chip = chip_with(clock, power_w=-3.06)
    clock.sleep(1.01 * CYCLE_S)
    assert chip.read_word(SHUNT) == 0x10000 - 6000
    assert chip.read_word(CURRENT) == 0x10000 - 6000
    assert chip.read_word(POWER) == 6000 * 1275 // 5000  # power has no sign


def test_bit_0_of_the_calibration_is_void(clock):
    chip = chip_with(clock, calibration=0x7FFF)
    assert chip.read_word(CALIBRATION) == 0x7FFE


@pytest.mark.parametrize("reset", [lambda chip: chip.write_word(CONFIG, 0x8000), lambda chip: chip.brown_out()])
def test_reset_brings_back_the_power_on_words(clock, reset):
    chip = chip_with(clock)
    clock.sleep(1.01 * CYCLE_S)
    reset(chip)
    assert [chip.read_word(register) for register in range(6)] == [0x399F, 0, 0, 0, 0, 0]
    clock.sleep(0.6e-3 + 0.532e-3)
    assert chip.read_word(SHUNT) == 6000  # it converts, at its power-on settings...
    assert chip.read_word(CURRENT) == chip.read_word(POWER) == 0  # ...and without a calibration


def test_triggered_converts_once_and_sleep_not_at_all(clock):
    chip = Ina219Chip(clock, Square(2.0, 4.0, 2.2 * CYCLE_S, t0_s=0.0))
    chip.write_word(CONFIG, EIGHT_AVERAGES & ~0x4)
    clock.sleep(1.5 * CYCLE_S)
    chip.read_word(POWER)
    first = chip.read_word(SHUNT)
    assert first > 0
    clock.sleep(10.7 * CYCLE_S)
    assert chip.read_word(SHUNT) == first
    assert not chip.read_word(BUS) & READY
    chip.write_word(CONFIG, EIGHT_AVERAGES & ~0x7)
    clock.sleep(10 * CYCLE_S)
    assert chip.read_word(SHUNT) == first
    assert not chip.read_word(BUS) & READY


def test_a_conversion_is_the_mean_over_its_window(clock):
    # 4.26 ms of shunt conversion over a load that is high for its first quarter: 2 + 2 x 0.25 W
    chip = Ina219Chip(clock, Square(2.04, 4.08, 1.0, duty=4.26e-3 / 4, t0_s=0.0), bus_v=5.1)
    chip.write_word(CONFIG, EIGHT_AVERAGES)
    clock.sleep(1.01 * CYCLE_S)
    assert chip.read_word(SHUNT) == pytest.approx((2.04 + 2.04 / 4) / 5.1 * 0.1 / 10e-6, abs=4)


def test_resolution_of_single_conversions(clock):
    for bits, step in ((9, 64), (10, 32), (11, 16), (12, 8)):  # gain /8: 80 uV at 12 bits
        chip = chip_with(clock, power_w=3.0701, config=0x1807 | 0x3 << 7 | (bits - 9) << 3)
        clock.sleep(2e-3)
        assert chip.read_word(SHUNT) % step == 0
        assert chip.read_word(SHUNT) == pytest.approx(3.0701 / 5.1 * 1e4, abs=step / 2)


def test_noise_fills_in_the_steps(clock):
    chip = chip_with(clock, power_w=3.0701, noise_v=80e-6, seed=3)
    words = []
    for _ in range(400):
        clock.sleep(CYCLE_S)
        words.append(chip.read_word(SHUNT))
    assert len(set(words)) > 3
    assert sum(words) / len(words) == pytest.approx(3.0701 / 5.1 * 1e4, abs=0.3 * 8)


def test_slow_oscillator_stretches_the_cycle(clock):
    chip = chip_with(clock, oscillator=1.1)
    clock.sleep(1.05 * CYCLE_S)
    assert not chip.read_word(BUS) & READY
    clock.sleep(0.06 * CYCLE_S)
    assert chip.read_word(BUS) & READY


@pytest.mark.parametrize("register", [6, 0x3E, 0xFE])
def test_other_registers_hold_nothing(clock, register):
    assert chip_with(clock).read_word(register) == 0


@pytest.mark.parametrize(("mode", "shunts", "buses"), [(5, True, False), (6, False, True), (7, True, True)])
def test_a_mode_converts_what_it_says(clock, mode, shunts, buses):
    chip = chip_with(clock)
    chip.write_word(CONFIG, 0x399F & ~7 | mode)
    clock.sleep(5 * CYCLE_S)
    assert (chip.read_word(SHUNT) > 0) == shunts
    assert (chip.read_word(BUS) >> 3 > 0) == buses

"""The estimate is a formula over processor time, and never anything but ESTIMATED."""

import psutil
import pytest

from pi_dynn.errors import MeterNotFound
from pi_dynn.power import ESTIMATED, open_meter
from pi_dynn.power.estimate import Estimate, busy_and_total_s, plausible_power_w, power_model


def test_power_between_idle_and_full(clock):
    model = power_model("Raspberry Pi 4 Model B Rev 1.4", 4)
    busy = {"s": 0.0}
    meter = Estimate(clock, model, lambda: (busy["s"], 4 * clock.now_ns() * 1e-9))
    clock.sleep(0.1)
    assert meter.read().power_w == pytest.approx(0.6 * 5.1)
    clock.sleep(0.1)
    busy["s"] += 0.4
    assert meter.read().power_w == pytest.approx(1.2 * 5.1)
    clock.sleep(0.1)
    busy["s"] += 0.1
    reading = meter.read()
    assert reading.power_w == pytest.approx((0.6 + 0.25 * 0.6) * 5.1)
    assert reading.t_ns == 250_000_000  # the middle of the time it is about


def test_no_processor_time_no_sample(clock):
    meter = Estimate(clock, power_model("", 2), lambda: (1.0, 2.0))
    clock.sleep(0.1)
    assert meter.read() is None


def test_the_integral_of_the_estimate(clock, sample):
    model = power_model("Raspberry Pi 4 Model B Rev 1.4", 4)
    meter = Estimate(clock, model, lambda: (2 * clock.now_ns() * 1e-9, 4 * clock.now_ns() * 1e-9))
    trace = sample(meter, 3.0)
    assert trace.cumulative.between(500_000_000, 2_500_000_000) == pytest.approx(2.0 * 0.9 * 5.1)


@pytest.mark.parametrize(
    ("board", "idle_w", "full_w"),
    [
        ("Raspberry Pi 4 Model B Rev 1.4", 3.06, 6.12),
        ("Raspberry Pi 3 Model B Rev 1.2", 1.53, 4.335),
        ("Raspberry Pi 5 Model B Rev 1.0", 3.1, 9.0),
        ("Raspberry Pi Zero 2 W Rev 1.0", 0.6, 1.785),
        ("Raspberry Pi Zero W Rev 1.1", 0.51, 1.173),
        ("Raspberry Pi Compute Module 4 Rev 1.1", 2.0, 5.2),
        ("NVIDIA Jetson Orin Nano Developer Kit", 6 * 0.74, 6 * 3.5),
    ],
)
def test_constants_are_those_of_the_board_and_cited(board, idle_w, full_w):
    model = power_model(board, 6)
    assert (model.idle_w, model.full_w) == pytest.approx((idle_w, full_w))
    assert model.source


def test_the_power_that_a_board_can_draw_at_its_input():
    low, high = plausible_power_w("Raspberry Pi 4 Model B Rev 1.4")
    assert low < 2.18 < 3.26 < high  # the published pair
    assert not low < 2.18 / 2 < high  # read with a shunt of twice its resistance
    assert plausible_power_w("a laptop") is None


def test_it_says_what_it_is(lay_out, clock):
    meter = open_meter("estimate", root=lay_out("pi4"), clock=clock)
    assert (meter.info.label, meter.info.measured) == (ESTIMATED, False)
    assert "Pi 4B" in meter.info.scope
    assert "power-supplies.adoc" in meter.info.notes[0]
    with pytest.raises(MeterNotFound, match="does not measure"):
        open_meter("estimate", require=True)


def test_processor_time_of_this_machine():
    busy_s, total_s = busy_and_total_s()
    assert 0 < busy_s < total_s
    times = psutil.cpu_times()
    assert total_s == pytest.approx(times.idle + getattr(times, "iowait", 0.0) + busy_s, rel=0.05)


@pytest.mark.parametrize(
    ("board", "idle_a", "full_a", "supply_a"),
    [
        ("Raspberry Pi 4 Model B", 0.6, 1.2, 3.0),
        ("Raspberry Pi 3 Model B", 0.3, 0.85, 2.5),
        ("Raspberry Pi 2 Model B", 0.22, 0.75, 1.8),
        ("Raspberry Pi Zero W", 0.10, 0.23, 1.2),
    ],
)
def test_documented_amperes_at_5_1_volts(board, idle_a, full_a, supply_a):
    model = power_model(board, 4)
    assert (model.idle_w, model.full_w, model.supply_w) == pytest.approx((idle_a * 5.1, full_a * 5.1, supply_a * 5.1))


def test_another_board_has_no_known_supply():
    assert power_model("something", 2).supply_w == 0.0

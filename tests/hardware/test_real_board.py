"""What only a wired board can show. Run with `pytest -m hardware`, the board otherwise idle.

The meter contract is run on real meters by tests/power/test_meter_contract.py. The wiring of an INA219
is given by PI_DYNN_I2C_BUS, PI_DYNN_I2C_ADDRESS and PI_DYNN_SHUNT_OHM.
"""

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from pi_dynn.board import read_throttle, take_snapshot
from pi_dynn.clock import PerfClock
from pi_dynn.errors import PowerError
from pi_dynn.power import Sampler, check_trace, open_meter

pytestmark = pytest.mark.hardware


@pytest.fixture
def meter():
    """The INA219, for this run alone."""
    with (Path(tempfile.gettempdir()) / "pi_dynn-meter.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            opened = open_meter(
                "ina219",
                bus=int(os.environ.get("PI_DYNN_I2C_BUS", "1")),
                address=int(os.environ.get("PI_DYNN_I2C_ADDRESS", "0x40"), 0),
                shunt_ohm=float(os.environ.get("PI_DYNN_SHUNT_OHM", "0.1")),
            )
        except PowerError as error:
            if "PI_DYNN_I2C_BUS" in os.environ:
                raise  # with the bus given there must be a meter on it
            pytest.skip(str(error))
        with opened:
            yield opened


def burn(clock, duration_s):
    """Keep one core busy."""
    end_ns = clock.now_ns() + round(duration_s * 1e9)
    value = 1.0
    while clock.now_ns() < end_ns:
        for _ in range(10_000):
            value = value * 1.0000001 % 7.0
    return value


def test_ten_seconds_are_sampled_without_a_fault(meter):
    clock = PerfClock()
    with Sampler(meter, clock, throttle_bits=lambda: read_throttle(run=None)) as sampler:
        clock.sleep(10.0)
    quality = check_trace(sampler.trace())
    assert quality.invalid_reasons == ()
    assert quality.sample_rate_hz > 0.8 / meter.info.nominal_period_s


def test_the_supply_of_a_board_is_near_five_volts(meter):
    clock = PerfClock()
    with Sampler(meter, clock) as sampler:
        clock.sleep(2.0)
    trace = sampler.trace()
    assert 4.63 < trace.voltage_v.mean() < 5.5  # below it the low-voltage detector trips
    assert 0.5 < trace.power_w.mean() < 16.0


def test_work_draws_more_than_idling(meter):
    clock = PerfClock()
    with Sampler(meter, clock) as sampler:
        with sampler.span("idle"):
            clock.sleep(5.0)
        with sampler.span("work"):
            burn(clock, 5.0)
    trace = sampler.trace()
    idle, work = trace.labelled("idle")[0], trace.labelled("work")[0]
    assert trace.mean_power_w(work) > 1.05 * trace.mean_power_w(idle)


def test_a_board_that_measures_knows_itself():
    if not Path("/proc/device-tree/model").exists():
        pytest.skip("no device tree: not a single-board computer")
    snapshot = take_snapshot()
    assert snapshot.model != snapshot.machine
    assert snapshot.governor is not None
    assert snapshot.temperature_c is not None
    assert 0.0 < snapshot.temperature_c < 100.0

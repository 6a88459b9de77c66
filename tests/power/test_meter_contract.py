"""The contract that every meter fulfils.

The same suite runs over simulated wires and file trees here, and over the real thing on a board:
`pytest -m hardware`. Bus, address and shunt of a real INA219 come from PI_DYNN_I2C_BUS,
PI_DYNN_I2C_ADDRESS and PI_DYNN_SHUNT_OHM.
"""

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from pi_dynn.clock import PerfClock
from pi_dynn.errors import PowerError
from pi_dynn.power import (
    EnergyMeter,
    EnergyReading,
    MeterInfo,
    PowerSample,
    Sampler,
    SteppedSampler,
    Trace,
    open_meter,
)
from pi_dynn.power.fake import Constant, FakeBus, Ina219Chip, Ina226Chip, Ina228Chip, SimulatedClock
from pi_dynn.power.ina.ina219 import Ina219
from pi_dynn.power.ina.ina226 import Ina226, Ina226Settings, Ina260, Ina260Settings
from pi_dynn.power.ina.ina228 import Ina228, Ina228Settings

SIMULATED_METERS = [
    "ina219",
    "ina219-usb",
    "ina226",
    "ina260",
    "ina228",
    "ina228-watts",
    "pi-ina219",
    "hwmon-ina219",
    "hwmon-ina3221",
    "rapl",
    "pmic",
    "estimate",
    "replay",
    "fake",
]
REAL_METERS = ["ina219", "ina226", "ina228", "ina260", "pi-ina219", "hwmon", "rapl", "pmic", "estimate"]


class Workbench:
    """A meter, the clock it lives on, and the sampler that fits both."""

    def __init__(self, meter, clock, sampler_class):
        self.meter, self.clock, self.sampler_class = meter, clock, sampler_class

    def sample(self, duration_s):
        with self.sampler_class(self.meter, self.clock) as sampler:
            self.clock.sleep(duration_s)
        return sampler.trace()


@pytest.fixture
def simulated(lay_out, pi5_firmware, monkeypatch, tmp_path):
    """Build each meter on a wire, tree or command of its own: name -> function of the clock."""

    def pi_ina219(clock):
        chip = Ina219Chip(clock, Constant(3.0))
        monkeypatch.setattr("pi_dynn.power.ina.pi_ina219._quiet_device", lambda *wiring: PiIna219Device(chip))
        return open_meter("pi-ina219", clock=clock, root=tmp_path)

    def estimate(clock):
        monkeypatch.setattr("pi_dynn.power.estimate.psutil.cpu_times", lambda: ProcessorTimes(clock))
        return open_meter("estimate", clock=clock)

    def replay(clock):
        recorder = SimulatedClock()
        with open_meter("fake", clock=recorder) as meter, SteppedSampler(meter, recorder) as sampler:
            recorder.sleep(20.0)
        sampler.trace().save(tmp_path / "trace.json")
        return open_meter(f"replay:{tmp_path / 'trace.json'}", clock=clock)

    return {
        "ina219": lambda clock: Ina219(FakeBus(Ina219Chip(clock, Constant(3.0)), clock), clock),
        # Through a USB adapter a transfer waits for frames of 1 ms.
        "ina219-usb": lambda clock: Ina219(FakeBus(Ina219Chip(clock, Constant(3.0)), clock, transfer_s=2e-3), clock),
        "ina226": lambda clock: Ina226(
            FakeBus(Ina226Chip(clock, Constant(3.0)), clock), clock, Ina226Settings(), name="ina226"
        ),
        "ina260": lambda clock: Ina260(
            FakeBus(Ina226Chip(clock, Constant(3.0), shunt_ohm=None), clock), clock, Ina260Settings(), name="ina260"
        ),
        "ina228": lambda clock: Ina228(
            FakeBus(Ina228Chip(clock, Constant(3.0)), clock), clock, Ina228Settings(), name="ina228"
        ),
        "ina228-watts": lambda clock: Ina228(
            FakeBus(Ina228Chip(clock, Constant(3.0)), clock), clock, Ina228Settings(counts=False), name="ina228"
        ),
        "pi-ina219": pi_ina219,
        "hwmon-ina219": lambda clock: open_meter("hwmon", clock=clock, root=lay_out("pi4")),
        "hwmon-ina3221": lambda clock: open_meter("hwmon", clock=clock, root=lay_out("agx_orin")),
        "rapl": lambda clock: open_meter("rapl", clock=clock, root=lay_out("laptop")),
        "pmic": lambda clock: open_meter("pmic", clock=clock, run=pi5_firmware),
        "estimate": estimate,
        "replay": replay,
        "fake": lambda clock: open_meter("fake", clock=clock),
    }


class PiIna219Device:
    def __init__(self, chip):
        self.readU16BE = chip.read_word
        self.chip = chip

    def writeList(self, register, data):
        self.chip.write_word(register, data[0] << 8 | data[1])


class ProcessorTimes(tuple):
    """What psutil.cpu_times gives, on a simulated clock: a quarter busy."""

    def __new__(cls, clock):
        seconds = clock.now_ns() * 1e-9
        return super().__new__(cls, (seconds, 3 * seconds))

    @property
    def idle(self):
        return self[1]


@pytest.fixture(
    params=[
        *[pytest.param(("simulated", name), id=name) for name in SIMULATED_METERS],
        *[pytest.param(("real", name), id=f"real {name}", marks=pytest.mark.hardware) for name in REAL_METERS],
    ]
)
def bench(request, simulated):
    kind, name = request.param
    if kind == "simulated":
        clock = SimulatedClock(start_ns=5_000_000_000)
        meter = simulated[name](clock)
        yield Workbench(meter, clock, SteppedSampler)
        meter.close()
        return
    options = {}
    if "ina219" in name:
        options = {
            "bus": int(os.environ.get("PI_DYNN_I2C_BUS", "1")),
            "address": int(os.environ.get("PI_DYNN_I2C_ADDRESS", "0x40"), 0),
            "shunt_ohm": float(os.environ.get("PI_DYNN_SHUNT_OHM", "0.1")),
        }
    clock = PerfClock()
    with (Path(tempfile.gettempdir()) / "pi_dynn-meter.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs must not share the wires
        try:
            meter = open_meter(name, clock=clock, **options)
        except PowerError as error:
            if "ina219" in name and "PI_DYNN_I2C_BUS" in os.environ:
                raise  # with the bus given there must be a meter on it
            pytest.skip(str(error))
        yield Workbench(meter, clock, Sampler)
        meter.close()


def test_it_is_a_meter_and_says_what_it_is(bench):
    info = bench.meter.info
    assert isinstance(bench.meter, EnergyMeter)
    assert info.name
    assert info.scope
    assert info.label in ("MEASURED", "ESTIMATED", "SIMULATED")
    assert info.measured == (info.label == "MEASURED")
    assert 0 < info.nominal_period_s <= 0.2
    assert 0 <= info.window_s <= info.nominal_period_s
    assert info.resolution_w >= 0
    assert MeterInfo.from_dict(info.to_dict()) == info


def test_samples_are_of_its_kind_and_rise_in_time(bench):
    trace = bench.sample(2.0)
    assert trace.error is None
    assert (trace.power_w is None) == (bench.meter.info.kind == "counter")
    assert len(trace.t_ns) >= 0.5 * 2.0 / bench.meter.info.nominal_period_s
    assert (trace.flags == 0).all()
    assert (trace.values >= 0).all()


def test_samples_are_stamped_before_they_are_read_and_not_long_ago(bench):
    meter, clock = bench.meter, bench.clock
    reading = None
    for _ in range(1000):
        opened_ns = clock.now_ns()
        reading = meter.read()
        if reading is not None:
            break
        clock.sleep(meter.info.nominal_period_s / 4)
    assert isinstance(reading, PowerSample if meter.info.kind == "power" else EnergyReading)
    assert reading.t_ns <= clock.now_ns()
    assert opened_ns - reading.t_ns < 3 * meter.info.nominal_period_s * 1e9 + 1e9


def test_power_is_volts_times_amperes_where_both_are_known(bench):
    trace = bench.sample(1.0)
    if trace.power_w is None:
        assert (trace.voltage_v != trace.voltage_v).all()
        return
    known = (trace.voltage_v == trace.voltage_v) & (trace.current_a == trace.current_a)
    product_w = trace.voltage_v[known] * trace.current_a[known]
    assert product_w == pytest.approx(trace.power_w[known], rel=0.02, abs=0.05)  # kernel files round each on its own


def test_a_window_integrates_and_survives_a_file(bench):
    trace = bench.sample(2.0)
    t0_ns, t1_ns = int(trace.t_ns[0]), int(trace.t_ns[-1])
    joules = trace.cumulative.between(t0_ns, t1_ns)
    assert joules >= 0
    assert Trace.from_dict(trace.to_dict()).cumulative.between(t0_ns, t1_ns) == joules


def test_it_can_be_closed_twice_and_used_in_a_with(bench):
    with bench.meter as meter:
        assert meter is bench.meter
    bench.meter.close()

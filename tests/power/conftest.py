"""A simulated clock, meters on it, and the file trees of real boards."""

import json
from pathlib import Path

import pytest

from pi_dynn.power import SteppedSampler
from pi_dynn.power.fake import Constant, FakeBus, Ina219Chip, SimulatedClock, open_fake

BOARDS = json.loads((Path(__file__).parent / "boards.json").read_text(encoding="utf-8"))

PMIC_TEXT = """\
 3V7_WL_SW_A current(0)=0.09466522A
   3V3_SYS_A current(1)=0.08000000A
  VDD_CORE_A current(7)=2.00000000A
   3V3_SYS_V volt(9)=3.30000000V
  VDD_CORE_V volt(15)=0.75000000V
 3V7_WL_SW_V volt(8)=3.70000000V
     EXT5V_V volt(24)=5.08530000V
      BATT_V volt(25)=0.00000000V
"""


@pytest.fixture
def clock():
    return SimulatedClock()


@pytest.fixture
def lay_out(tmp_path):
    """Write the file tree of a board below a folder of its own, and return that folder."""

    def write(board: str) -> Path:
        root = tmp_path / board
        for name, text in BOARDS[board].items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + ("" if text.endswith("\0") else "\n"), encoding="utf-8")
        return root

    return write


@pytest.fixture
def pi5_firmware():
    """Answers as a Pi 5's vcgencmd does."""
    return lambda command: PMIC_TEXT if tuple(command) == ("vcgencmd", "pmic_read_adc") else "throttled=0x0\n"


@pytest.fixture
def open_chip(clock):
    """Open the fake meter on a chip with faults: `open_chip(load, settings..., chip={...}, bus={...})`."""

    def build(load=None, *, chip=None, bus=None, **settings):
        load = load if load is not None else Constant(3.0)
        chip = {"shunt_ohm": settings.get("shunt_ohm", 0.1), **(chip or {})}
        wire = FakeBus(Ina219Chip(clock, load, **chip), clock, **(bus or {}))
        return open_fake(clock=clock, bus=wire, **settings)

    return build


@pytest.fixture
def sample(clock):
    """Sample a meter for so many seconds and return the trace."""

    def run(meter, duration_s, **options):
        with SteppedSampler(meter, clock, **options) as sampler:
            clock.sleep(duration_s)
        return sampler.trace()

    return run


@pytest.fixture
def next_sample(clock):
    """Wait for the next fresh sample of a meter, for at most a second of its clock."""

    def wait(meter):
        end_ns = clock.now_ns() + 1_000_000_000
        while clock.now_ns() < end_ns:
            due_ns = meter.due_ns() or clock.now_ns()
            clock.sleep(max(1e-6, (due_ns - clock.now_ns()) * 1e-9))
            reading = meter.read()
            if reading is not None:
                return reading
        raise AssertionError("no sample within a second")

    return wait

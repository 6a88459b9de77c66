"""The meter `pmic`: the power chip of a Raspberry Pi 5, read with `vcgencmd pmic_read_adc`.

It measures voltage and current of a dozen rails behind its own converters. Of the 5 V input it measures only the
voltage, so USB devices and the chip's own loss are not in the sum.
"""

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from pi_dynn.clock import Clock
from pi_dynn.errors import MeterBusError, MeterNotFound
from pi_dynn.power.meter import MEASURED, EnergyMeter, MeterInfo, PowerSample

COMMAND = ("vcgencmd", "pmic_read_adc")
_PERIOD_S = 0.1  # every reading starts a process; 50 per second slow the measured work
_TIMEOUT_S = 2.0
_LINE = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=([0-9.]+)[AV]\s*$", re.MULTILINE)


def run_command(command: Sequence[str]) -> str:
    """The standard output of `command`. Raises: OSError or subprocess.SubprocessError."""
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout


def parse_rails(text: str) -> dict[str, tuple[float, float]]:
    """Volts and amperes of every rail that has both, by name.

    >>> parse_rails(''' VDD_CORE_A current(7)=2.00000000A
    ...                 VDD_CORE_V volt(15)=0.75000000V
    ...                  EXT5V_V volt(24)=5.10000000V''')
    {'VDD_CORE': (0.75, 2.0)}
    """
    rails: dict[str, dict[str, float]] = {}
    for name, unit, value in _LINE.findall(text):
        rails.setdefault(name, {})[unit] = float(value)
    return {name: (rail["V"], rail["A"]) for name, rail in rails.items() if len(rail) == 2}


class Pmic(EnergyMeter):
    """All rails of the Pi 5's power chip, added up."""

    def __init__(self, clock: Clock, run: Callable[[Sequence[str]], str] = run_command) -> None:
        self._clock = clock
        self._run = run
        try:
            rails = parse_rails(run(COMMAND))
        except FileNotFoundError as error:
            raise MeterNotFound("there is no vcgencmd: only a Pi 5 has a power chip that it reads") from error
        except (OSError, subprocess.SubprocessError) as error:
            raise MeterNotFound(f"vcgencmd pmic_read_adc does not run ({error}): only a Pi 5 has it") from error
        if not rails:  # a Pi 4 answers with an error text and status 0
            raise MeterNotFound("vcgencmd pmic_read_adc names no rail: only a Raspberry Pi 5 measures its own")
        self.info = MeterInfo(
            name="pmic",
            scope="on-board rails (no USB, no conversion loss)",
            rails=tuple(sorted(rails)),
            resolution_w=1e-3,
            nominal_period_s=_PERIOD_S,
            measured=True,
            label=MEASURED,
        )

    def read(self) -> PowerSample:
        start_ns = self._clock.now_ns()
        try:
            rails = parse_rails(self._run(COMMAND))
        except (OSError, subprocess.SubprocessError) as error:
            raise MeterBusError(
                f"vcgencmd pmic_read_adc failed ({error}): close other programs that use vcgencmd"
            ) from error
        middle_ns = (start_ns + self._clock.now_ns()) // 2
        if sorted(rails) != list(self.info.rails):
            raise MeterBusError(f"the power chip named the rails {sorted(rails)!r}, not all as before: try again")
        return PowerSample(middle_ns, sum(voltage_v * current_a for voltage_v, current_a in rails.values()))


def open_pmic(*, clock: Clock, root: Path = Path("/"), run: Callable[[Sequence[str]], str] = run_command) -> Pmic:
    """Open the power chip of a Raspberry Pi 5. Raises: MeterNotFound elsewhere."""
    return Pmic(clock, run)

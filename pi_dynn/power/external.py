"""The meter `external`: an instrument that records on its own, whose trace is joined with the run afterwards.

It gives no samples; a run with it keeps when the board was idle and when it worked.
"""

from pathlib import Path

from pi_dynn.clock import Clock
from pi_dynn.power.meter import SIMULATED, EnergyMeter, MeterInfo

_PERIOD_S = 0.01


class External(EnergyMeter):
    """A meter without samples."""

    def __init__(self) -> None:
        self.info = MeterInfo(
            name="external",
            scope="board input",
            rails=(),
            resolution_w=0.0,
            nominal_period_s=_PERIOD_S,
            measured=False,
            label=SIMULATED,
            notes=("no samples yet: join the instrument's trace with --join",),
        )

    def read(self) -> None:
        return None


def open_external(*, clock: Clock, root: Path = Path("/")) -> External:
    """The meter without samples; works everywhere."""
    return External()

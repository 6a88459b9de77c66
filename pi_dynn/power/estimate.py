"""The meter `estimate`: power modelled from processor utilisation, to try things out without a meter.

power = idle + (full - idle) x utilisation
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from pi_dynn.clock import Clock
from pi_dynn.power.meter import ESTIMATED, EnergyMeter, MeterInfo, PowerSample
from pi_dynn.text import counted

_PERIOD_S = 0.1  # the kernel counts in hundredths of a second


@dataclass(frozen=True)
class PowerModel:
    """Power of a board when idle and at full load, of its recommended supply (0: unknown), and the source."""

    scope: str
    idle_w: float
    full_w: float
    source: str
    supply_w: float = 0.0


_PI_DOCS = "raspberrypi/documentation, power-supplies.adoc: average amperes idle and under stress, at 5.1 V"
_ZERO_2_SOURCE = "CNX Software, 2021-12-09 (Otii Arc): 120 mA idle; power-supplies.adoc: 350 mA active"
_PI_5_SOURCE = "geerlingguy/sbc-reviews issue 60: a Pi 500, which has the same processor, at the wall"
_CM4_SOURCE = "CM4 datasheet: 400 mA idle; geerlingguy/top500-benchmark: 5.2 W at full load"
_MODELS = (  # by the beginning of the device tree's model, longer ones first
    ("Raspberry Pi 5", PowerModel("board input (model of a Pi 5)", 3.1, 9.0, _PI_5_SOURCE, 5.0 * 5.1)),
    ("Raspberry Pi 4", PowerModel("board input (model of a Pi 4B)", 0.6 * 5.1, 1.2 * 5.1, _PI_DOCS, 3.0 * 5.1)),
    ("Raspberry Pi 3", PowerModel("board input (model of a Pi 3B)", 0.3 * 5.1, 0.85 * 5.1, _PI_DOCS, 2.5 * 5.1)),
    ("Raspberry Pi 2", PowerModel("board input (model of a Pi 2B)", 0.22 * 5.1, 0.75 * 5.1, _PI_DOCS, 1.8 * 5.1)),
    ("Raspberry Pi Zero 2", PowerModel("board input (model of a Zero 2 W)", 0.6, 0.35 * 5.1, _ZERO_2_SOURCE, 2 * 5.1)),
    ("Raspberry Pi Zero", PowerModel("board input (model of a Pi Zero)", 0.10 * 5.1, 0.23 * 5.1, _PI_DOCS, 1.2 * 5.1)),
    ("Raspberry Pi Compute Module 4", PowerModel("board input (model of a CM4)", 0.4 * 5, 5.2, _CM4_SOURCE, 3.0 * 5.1)),
)
_LEAST_IDLE = 0.5  # of the documented idle power, which includes a screen, keyboard and network
_ANY_IDLE_W, _ANY_FULL_W = 0.74, 3.5
_ANY_SOURCE = "Cloud Carbon Footprint methodology: average watts per hardware thread, idle and full"


def power_model(board: str, threads: int) -> PowerModel:
    """The model for a board of this name with this many hardware threads."""
    return board_model(board) or PowerModel(
        f"processor (model, {counted(threads, 'thread')})", _ANY_IDLE_W * threads, _ANY_FULL_W * threads, _ANY_SOURCE
    )


def board_model(board: str) -> PowerModel | None:
    """The model of a board that is known by name."""
    return next((model for beginning, model in _MODELS if board.startswith(beginning)), None)


def plausible_power_w(board: str) -> tuple[float, float] | None:
    """The least and largest power [low, high] that a known board can draw at its input; None for another board."""
    model = board_model(board)
    return None if model is None else (_LEAST_IDLE * model.idle_w, model.supply_w)


def busy_and_total_s() -> tuple[float, float]:
    """Busy seconds and all seconds of all processors together since boot."""
    times = psutil.cpu_times()
    total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)  # already part of user
    return total_s - times.idle - getattr(times, "iowait", 0.0), total_s


class Estimate(EnergyMeter):
    """A power model driven by processor utilisation. Always ESTIMATED."""

    def __init__(
        self, clock: Clock, model: PowerModel, processor_times: Callable[[], tuple[float, float]] = busy_and_total_s
    ) -> None:
        self._clock = clock
        self._model = model
        self._processor_times = processor_times
        self._last = (clock.now_ns(), *processor_times())
        self.info = MeterInfo(
            name="estimate",
            scope=model.scope,
            rails=(),
            resolution_w=(model.full_w - model.idle_w) * 0.01 / _PERIOD_S,
            nominal_period_s=_PERIOD_S,
            measured=False,
            label=ESTIMATED,
            window_s=_PERIOD_S,
            notes=(f"constants: {model.source}",),
        )

    def read(self) -> PowerSample | None:
        """Mean power since the last sample, or None if no processor time was counted since."""
        now_ns, (busy_s, total_s) = self._clock.now_ns(), self._processor_times()
        then_ns, busy_then_s, total_then_s = self._last
        if total_s <= total_then_s or now_ns <= then_ns:
            return None
        utilisation = min(1.0, max(0.0, (busy_s - busy_then_s) / (total_s - total_then_s)))
        self._last = (now_ns, busy_s, total_s)
        power_w = self._model.idle_w + (self._model.full_w - self._model.idle_w) * utilisation
        return PowerSample((then_ns + now_ns) // 2, power_w)


def model_of_this_board(root: Path = Path("/")) -> PowerModel:
    """The power model that fits the board; there is one everywhere."""
    try:
        board = (root / "proc/device-tree/model").read_text(encoding="utf-8").strip("\0\n ")
    except (OSError, UnicodeDecodeError):
        board = ""  # no device tree: not a single-board computer
    return power_model(board, psutil.cpu_count() or 1)


def open_estimate(*, clock: Clock, root: Path = Path("/")) -> Estimate:
    """Open the power model that fits the board; works everywhere."""
    return Estimate(clock, model_of_this_board(root))

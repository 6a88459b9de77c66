"""Reads a board's identity and state (cores, frequency, temperature, throttling) before and after a measurement.

Files are read below an injectable root and commands go through an injectable runner, so that a test can
simulate any board.
"""

import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from pi_dynn.records import Record

_COMMAND_TIMEOUT_S = 2.0
_HOT_C = 80.0  # a Pi begins to slow down here (raspberrypi.com, frequency management)
_BUSY_PERCENT = 20.0

_THROTTLE_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_SINCE_BOOT_SHIFT = 16
# Arm's part numbers in MIDR_EL1 and /proc/cpuinfo, of the cores in a Raspberry Pi 3, 4 and 5.
_ARM_CORES = {0xD03: "Cortex-A53", 0xD08: "Cortex-A72", 0xD0B: "Cortex-A76"}

Runner = Callable[[Sequence[str]], str]


def run_command(command: Sequence[str]) -> str:
    """The standard output of `command`. Raises: OSError or subprocess.SubprocessError."""
    return subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=True).stdout


class ThrottleState(NamedTuple):
    """The conditions in the firmware's throttle word: those present now, and those seen since boot."""

    now: tuple[str, ...]
    since_boot: tuple[str, ...]


def decode_throttle(bits: int) -> ThrottleState:
    """The conditions that the bits of a throttle word stand for.

    Source: raspberrypi.com, vcgencmd get_throttled: bits 0-3 are now, 16-19 sticky since boot.

    >>> decode_throttle(0x50005)
    ThrottleState(now=('under-voltage', 'throttled'), since_boot=('under-voltage', 'throttled'))
    """
    return ThrottleState(
        tuple(name for bit, name in _THROTTLE_BITS.items() if bits >> bit & 1),
        tuple(name for bit, name in _THROTTLE_BITS.items() if bits >> bit + _SINCE_BOOT_SHIFT & 1),
    )


def read_throttle(root: str | Path = "/", run: Runner | None = run_command) -> int | None:
    """The firmware's throttle word, or None where there is none (not a Raspberry Pi).

    The sysfs file is read first, because that starts no process; with `run=None` no command is run, so that
    a sampler can afford it. Without a word, the kernel's under-voltage alarm is returned.
    """
    root = Path(root)
    for path in sorted(root.glob("sys/devices/platform/soc*/*firmware/get_throttled")):
        bits = _parse_bits(_text(path))
        if bits is not None:
            return bits
    if run is not None:
        try:
            bits = _parse_bits(run(("vcgencmd", "get_throttled")).strip().rpartition("=")[2])
        except (OSError, subprocess.SubprocessError):
            bits = None
        if bits is not None:
            return bits
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if _text(chip / "name") == "rpi_volt":
            return _number(chip / "in0_lcrit_alarm")
    return None


def _parse_bits(text: str | None) -> int | None:
    try:
        return None if text is None else int(text, 16)
    except ValueError:
        return None


@dataclass(frozen=True)
class BoardSnapshot(Record):
    """The state of a board at one moment; None for what cannot be read.

    `frequency_hz` and `frequency_max_hz` are those of the fastest cores, `governor` joins those of all
    clusters, `other_load_percent` is processor utilisation by other programs (of all cores, 0 to 100),
    `omp_num_threads` the environment variable of that name, `core` the kind of Arm core.
    """

    model: str
    machine: str
    kernel: str
    python: str
    cores: int
    governor: str | None
    frequency_hz: float | None
    frequency_max_hz: float | None
    temperature_c: float | None
    throttle_bits: int | None
    memory_total_bytes: int
    memory_available_bytes: int
    load_average: float | None
    other_load_percent: float
    omp_num_threads: str | None
    core: str | None = None

    @property
    def throttle(self) -> ThrottleState | None:
        """The throttle bits in words."""
        return None if self.throttle_bits is None else decode_throttle(self.throttle_bits)


def take_snapshot(
    root: str | Path = "/",
    run: Runner = run_command,
    utilisation_percent: Callable[[], float] = lambda: psutil.cpu_percent(0.1),
) -> BoardSnapshot:
    """The snapshot of the board below `root`. Never fails: what cannot be read is None."""
    root = Path(root)
    policies = sorted(root.glob("sys/devices/system/cpu/cpufreq/policy*"))
    governors = sorted({text for policy in policies if (text := _text(policy / "scaling_governor"))})
    memory = psutil.virtual_memory()
    return BoardSnapshot(
        model=_model(root),
        machine=platform.machine(),
        kernel=platform.release(),
        python=platform.python_version(),
        cores=_cores(root),
        governor="+".join(governors) or None,
        frequency_hz=_fastest_hz(policies, "scaling_cur_freq"),
        frequency_max_hz=_fastest_hz(policies, "scaling_max_freq"),
        temperature_c=_temperature_c(root),
        throttle_bits=read_throttle(root, run),
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        other_load_percent=utilisation_percent(),
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        core=core_name(root),
    )


class Board:
    """This board, read on every call: files below `root`, commands through `run`."""

    def __init__(self, root: str | Path = "/", run: Runner = run_command) -> None:
        self._root, self._run = Path(root), run

    def snapshot(self) -> BoardSnapshot:
        """The result of `take_snapshot`."""
        return take_snapshot(self._root, self._run)

    def temperature_c(self) -> float | None:
        """The processor's temperature."""
        return _temperature_c(self._root)

    def throttle_bits(self) -> int | None:
        """The firmware's throttle word; may start a process, so call it between measurements only."""
        return read_throttle(self._root, self._run)

    def live_throttle_bits(self) -> int | None:
        """The same from files alone, cheap enough to call while measuring."""
        return read_throttle(self._root, None)


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def instruction_sets(root: str | Path = "/") -> frozenset[str]:
    """What Linux lists of the first core's instructions, such as "avx2" or "asimddp"; nothing elsewhere."""
    for line in (_text(Path(root) / "proc/cpuinfo") or "").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def core_name(root: str | Path = "/") -> str | None:
    """The name of the fastest Arm core, such as "Cortex-A72"; None for an unknown one."""
    lines = (_text(Path(root) / "proc/cpuinfo") or "").splitlines()
    parts = [_parse_bits(line.partition(":")[2].strip()) for line in lines if line.startswith("CPU part")]
    return _ARM_CORES.get(max((part for part in parts if part is not None), default=0))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip("\0 \n") or None
    except (OSError, UnicodeDecodeError):
        return None


def _number(path: Path) -> int | None:
    try:
        return int(_text(path) or "")
    except ValueError:
        return None


def _model(root: Path) -> str:
    dmi = root / "sys/class/dmi/id"
    laptop = " ".join(text for name in ("sys_vendor", "product_name") if (text := _text(dmi / name)))
    return _text(root / "proc/device-tree/model") or laptop or platform.machine()


def _cores(root: Path) -> int:
    """How many cores are online, from a list such as `0-3,6`."""
    online = _text(root / "sys/devices/system/cpu/online")
    try:
        spans = [part.partition("-") for part in (online or "").split(",")]
        return sum(int(last or first) - int(first) + 1 for first, _, last in spans)
    except ValueError:
        return psutil.cpu_count() or 1


def _fastest_hz(policies: list[Path], name: str) -> float | None:
    khz = [value for policy in policies if (value := _number(policy / name)) is not None]
    return max(khz) * 1e3 if khz else None


def _temperature_c(root: Path) -> float | None:
    """The processor's temperature: the zone named after it, else the first one."""
    zones = sorted(root.glob("sys/class/thermal/thermal_zone*"), key=lambda zone: (len(zone.name), zone.name))
    zones.sort(key=lambda zone: not _is_processor(_text(zone / "type") or ""))
    readings = [value for zone in zones if (value := _number(zone / "temp")) is not None]
    return readings[0] * 1e-3 if readings else None


def _is_processor(zone_type: str) -> bool:
    return zone_type.lower().startswith("cpu") or zone_type == "x86_pkg_temp"


def invalidating_changes(before: BoardSnapshot, after: BoardSnapshot, measured: bool = True) -> tuple[str, ...]:
    """Reasons why a measurement between two snapshots is invalid; empty if there is none.

    Heat and the load by other programs count only where power was `measured`: a model or a simulation of it does not
    feel the first and includes or ignores the second.
    """
    reasons = []
    if before.governor != after.governor:
        reasons.append(f"the governor changed from {before.governor} to {after.governor}")
    if before.frequency_max_hz != after.frequency_max_hz:
        hertz = [f"{(hz or 0) / 1e6:.0f}" for hz in (before.frequency_max_hz, after.frequency_max_hz)]
        reasons.append(f"the highest clock changed from {hertz[0]} to {hertz[1]} MHz")
    if before.throttle_bits != after.throttle_bits:
        reasons.append(f"throttle state changed ({_hex(before.throttle_bits)} to {_hex(after.throttle_bits)})")
    elif after.throttle is not None and after.throttle.now:
        reasons.append(f"throttled throughout: {', '.join(after.throttle.now)}")
    if measured and after.temperature_c is not None and after.temperature_c >= _HOT_C:
        reasons.append(f"the processor reached {after.temperature_c:.0f} C (limit {_HOT_C:.0f} C): add a fan")
    other_percent = max(before.other_load_percent, after.other_load_percent)
    if measured and other_percent > _BUSY_PERCENT:
        reasons.append(
            f"other programs took {other_percent:.0f} % of the processor (limit {_BUSY_PERCENT:.0f} %): close them"
        )
    return tuple(reasons)


def _hex(bits: int | None) -> str:
    return "unknown" if bits is None else f"{bits:#x}"


def advice(snapshot: BoardSnapshot) -> tuple[str, ...]:
    """What to do before measuring on this board, one line each; empty if nothing."""
    lines = []
    if snapshot.governor not in (None, "performance"):
        lines.append(f"governor is {snapshot.governor}: sudo cpufreq-set -g performance")
    if snapshot.throttle is not None and snapshot.throttle.now:
        lines.append(f"now: {', '.join(snapshot.throttle.now)}: cool the board, use a 5.1 V supply and a short cable")
    elif snapshot.throttle is not None and snapshot.throttle.since_boot:
        lines.append(f"since boot: {', '.join(snapshot.throttle.since_boot)}: reboot, so that a new event shows")
    if snapshot.temperature_c is not None and snapshot.temperature_c >= _HOT_C:
        lines.append(f"processor at {snapshot.temperature_c:.0f} C: let it cool below {_HOT_C:.0f} C")
    if snapshot.other_load_percent > _BUSY_PERCENT:
        lines.append(f"other programs take {snapshot.other_load_percent:.0f} % of the processor: close them")
    return tuple(lines)

"""How many threads answer fastest on this machine, one or all cores: both are timed once, and the choice is kept.

Small layers do not scale: what a second core saves, waking it may cost again.
"""

import json
import os
import platform
import statistics
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from pi_dynn.clock import Clock
from pi_dynn.errors import PiDynnError
from pi_dynn.files import write_text
from pi_dynn.runtime.engine_choice import cache_path

TIMED_RUNS = 7
WARM_UPS = 2


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fastest_threads(answer: Callable[[], object], bundle_sha256: str, engine: str, clock: Clock) -> int:
    """1 or all cores, whichever gives `answer` the shorter median; torch is left with that many threads.

    Remembered per machine, torch, bundle and engine.
    """
    cores = usable_cores()
    key = "|".join((bundle_sha256, engine, torch.__version__, platform.machine(), platform.node(), str(cores)))
    known = _read()
    if cores == 1 or known.get(key) in (1, cores):
        threads = known.get(key, 1)
    else:
        threads = _timed(answer, (1, cores), clock)
        _remember(known | {key: threads})
    torch.set_num_threads(threads)
    return threads


def _timed(answer: Callable[[], object], counts: tuple[int, ...], clock: Clock) -> int:
    times: dict[int, list[int]] = {count: [] for count in counts}
    for turn in range(WARM_UPS + TIMED_RUNS):  # in turns, so that a busy moment hits both
        for count in counts:
            torch.set_num_threads(count)
            start_ns = clock.now_ns()
            answer()
            if turn >= WARM_UPS:
                times[count].append(clock.now_ns() - start_ns)
    return min(counts, key=lambda count: statistics.median(times[count]))


def choices_path() -> Path:
    """Where choices are kept; delete the file to have them made again."""
    return cache_path().with_name("threads.json")


def _read() -> dict[str, int]:
    try:
        entries = json.loads(choices_path().read_text())
        return {str(key): int(count) for key, count in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _remember(entries: dict[str, int]) -> None:
    with suppress(OSError, PiDynnError):  # a read-only home costs the choice again next time, nothing else
        write_text(choices_path(), json.dumps(entries, indent=1) + "\n")

"""The choice between 1 thread and all that are allowed, timed once and cached. Imports no torch.

Small layers do not scale: waking a second core may cost as much as it saves.
"""

import os
import statistics
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, TypeVar

from pi_dynn.board import usable_cores
from pi_dynn.clock import Clock
from pi_dynn.runtime.machine_cache import CHOICES

TIMED_RUNS = 7
WARM_UPS = 2
Choice = TypeVar("Choice", bound=Hashable)


class Threaded(Protocol):
    """What computes with a number of threads."""

    def set_threads(self, threads: int) -> None:
        """Compute with so many from now on."""


def most_threads() -> int:
    """A thread for each core, or as many as OMP_NUM_THREADS allows."""
    allowed = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(usable_cores(), int(allowed) or 1) if allowed.isdecimal() else usable_cores()


def fastest_threads(network: Threaded, run: Callable[[], object], sha256: str, engine: str, clock: Clock) -> int:
    """1 or `most_threads`, whichever has the shorter median of `run`; `network` is left with that many threads.

    Cached per machine, torch, bundle (by its `sha256`) and engine.
    """
    threads = cached_threads(sha256, engine)
    if threads is None:
        threads = fastest((1, most_threads()), network.set_threads, lambda _: run(), clock)
        CHOICES.keep_if_writable(threads, *_of(sha256, engine))
    network.set_threads(threads)
    return threads


def cached_threads(sha256: str, engine: str) -> int | None:
    """The number chosen before; None where that is still to be done."""
    threads = 1 if most_threads() == 1 else CHOICES.get(*_of(sha256, engine))
    return threads if threads in (1, most_threads()) else None


def _of(sha256: str, engine: str) -> tuple[object, ...]:
    return "threads", sha256, engine, most_threads()


def fastest(
    choices: Sequence[Choice], prepare: Callable[[Choice], object], run: Callable[[Choice], object], clock: Clock
) -> Choice:
    """The choice with the shortest median of `run`; `prepare` is called before each run and not timed."""
    times: dict[Choice, list[int]] = {choice: [] for choice in choices}
    for turn in range(WARM_UPS + TIMED_RUNS):  # interleaved, so that a disturbance affects all of them
        for choice in choices:
            prepare(choice)
            start_ns = clock.now_ns()
            run(choice)
            if turn >= WARM_UPS:
                times[choice].append(clock.now_ns() - start_ns)
    return min(choices, key=lambda choice: statistics.median(times[choice]))

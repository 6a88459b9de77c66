"""Runs on the emulated core: instructions by class between two marks that benchmarks/arm/count.c sees."""

import json
import os
from collections.abc import Callable

WARM_UP = 2  # the first run of a layer packs and allocates


def mark(counts) -> dict[str, int]:
    """The totals by class so far; the plugin writes them whenever the parent's id is asked for."""
    os.getppid()
    return json.loads(counts.readlines()[-1])


def count(run: Callable[[], object], counts) -> dict[str, int]:
    """Instructions by class of one call of `run`."""
    for _ in range(WARM_UP):
        run()
    before = mark(counts)
    run()
    after = mark(counts)
    return {name: after[name] - before[name] for name in after}

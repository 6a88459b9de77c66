"""Latency of several variants, interleaved in one run so that disturbances affect all alike; and cold starts."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pi_dynn.clock import Clock
from pi_dynn.errors import PiDynnError
from pi_dynn.latency.peers import Peer
from pi_dynn.latency.records import FULL_DEPTH, ColdStart, LatencyRow
from pi_dynn.runtime.session import Session
from pi_dynn.stats import bootstrap_interval, bootstrap_ratio_interval, median, percentile


@dataclass(frozen=True)
class Variant:
    """A variant to time: one call of `run` answers the `i`-th image, on `threads` threads if given.

    `block_index` is the block after which every answer leaves, None if they leave at several.
    """

    name: str
    exits: str
    run: Callable[[int], object]
    threads: int | None = None
    block_index: int | None = None


def measure(variants: list[Variant], rounds: int, threads: int, clock: Clock, warm_up: int = 3) -> list[LatencyRow]:
    """One row per variant over `rounds` interleaved calls each; speed-up is against the first variant."""
    for variant in variants:
        torch.set_num_threads(variant.threads or threads)
        for i in range(warm_up):
            variant.run(i)
    times_s: Mapping[str, list[float]] = {variant.name: [] for variant in variants}
    for i in range(rounds):
        for variant in variants:
            if torch.get_num_threads() != (variant.threads or threads):
                torch.set_num_threads(variant.threads or threads)
            start_ns = clock.now_ns()
            variant.run(i)
            times_s[variant.name].append((clock.now_ns() - start_ns) / 1e9)
    first_s = times_s[variants[0].name]
    return [_row(variant, times_s[variant.name], first_s, variant.threads or threads) for variant in variants]


def session_variants(
    session: Session, inputs: Sequence[Tensor], name: str, each_exit: bool = False, threads: int | None = None
) -> list[Variant]:
    """A session over `inputs` in turn: at full depth, with `each_exit` forced to each exit, and its natural mix."""

    def timed(thresholds: list[float] | None) -> Callable[[int], object]:
        return lambda i: session.classify(inputs[i % len(inputs)], thresholds)

    *blocks, last = session.manifest.blocks
    full = Variant(f"{name}, full depth", FULL_DEPTH, timed(session.forced_thresholds(len(blocks))), threads, last)
    each = [
        Variant(f"{name}, block {block}", "all at this one", timed(session.forced_thresholds(k)), threads, block)
        for k, block in enumerate(blocks)
        if each_exit
    ]
    return [full, *each, Variant(f"{name}, with exits", "as they come", timed(None), threads)]


def peer_variants(peer: Peer, inputs: Sequence[Tensor], exits: Sequence[int] | None, title: str = "") -> list[Variant]:
    """A peer at full depth, and with image `i` leaving at `exits[i]`, the exit of the session it is compared with.

    The peer computes the same blocks and gates, but the scores of its own gates are ignored.
    """
    batches = [x.unsqueeze(0) for x in inputs]

    def answer(i: int, k: int | None, count: int) -> None:
        peer.answer(batches[i % len(batches)], [0.0 if k == j else 2.0 for j in range(count)])

    name, count = f"{title}{peer.name}", peer.exits
    variants = [Variant(f"{name}, full depth", "none taken", lambda i: answer(i, None, count))]
    if exits is not None and count:
        chosen = list(exits)
        by_exit = Variant(f"{name}, with exits", "the same", lambda i: answer(i, chosen[i % len(chosen)], count))
        variants.append(by_exit)
    return variants


def natural_exits(session: Session, inputs: Sequence[Tensor]) -> list[int]:
    """The exit of each input at the bundle's own thresholds."""
    return [session.classify(x).exit_index for x in inputs]


def _row(variant: Variant, times_s: list[float], first_s: list[float], threads: int) -> LatencyRow:
    return LatencyRow(
        name=variant.name,
        exits=variant.exits,
        threads=threads,
        n=len(times_s),
        median_s=median(times_s),
        p90_s=percentile(times_s, 90),
        p99_s=percentile(times_s, 99),
        ci95_s=bootstrap_interval(times_s),
        speedup=median(first_s) / median(times_s),
        mean_s=sum(times_s) / len(times_s),
        speedup_ci95=bootstrap_ratio_interval(first_s, times_s),
        block_index=variant.block_index,
    )


# All times are those of pi_dynn.clock, which imports nothing else.
_PROGRAM = """
import json, sys
from pathlib import Path
from pi_dynn.clock import PerfClock
clock, marks = PerfClock(), []
mark = lambda: marks.append(clock.now_ns())
bundle, engine, threads, photograph = json.loads(sys.argv[1])
mark()
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.runtime.session import Session
mark()
loaded = load_bundle(bundle)
mark()
session = Session(loaded, threads=threads, engine=engine)
mark()
session.classify(photograph)
mark()
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0])
print(json.dumps([marks, peak, session.engine, session.threads]))
"""
_KIB = 1024  # the unit of VmHWM; ru_maxrss would include the memory of the parent process


def measure_cold_start(
    bundle: Path | None, engine: str, threads: int | None, photograph: str | Path, processes: int = 3
) -> ColdStart:
    """The cold start over `processes` fresh processes, each of which loads the bundle and answers one photograph.

    The engine is chosen again only if no choice is cached, as in any other run.

    Raises: PiDynnError if such a process fails.
    """
    arguments = json.dumps([None if bundle is None else str(bundle), engine, threads, str(photograph)])
    parts: list[list[float]] = [[], [], [], []]
    peaks = []
    for _ in range(processes):
        run = subprocess.run([sys.executable, "-c", _PROGRAM, arguments], capture_output=True, text=True)
        if run.returncode != 0:
            reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
            raise PiDynnError(f"a fresh process could not answer {photograph} ({reason}): try `pi-dynn classify` on it")
        marks_ns, peak, used, count = json.loads(run.stdout.splitlines()[-1])
        for part, start_ns, stop_ns in zip(parts, marks_ns, marks_ns[1:], strict=False):
            part.append((stop_ns - start_ns) / 1e9)
        peaks.append(peak * _KIB)
    import_s, read_s, ready_s, first_s = (median(part) for part in parts)
    return ColdStart(used, count, processes, import_s, read_s, ready_s, first_s, max(peaks))

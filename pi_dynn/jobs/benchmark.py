"""Latency of several variants, measured in turns in one run so that a busy moment hits all alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pi_dynn.clock import Clock
from pi_dynn.records import LatencyRow
from pi_dynn.runtime.session import Session
from pi_dynn.stats import bootstrap_interval, median, percentile


@dataclass(frozen=True)
class Variant:
    """Something to time: one call is one answer for the `i`-th image."""

    name: str
    exits: str
    run: Callable[[int], object]


def measure(variants: list[Variant], rounds: int, threads: int, clock: Clock, warm_up: int = 3) -> list[LatencyRow]:
    """One row per variant over `rounds` interleaved calls each; speed-up is against the first variant."""
    for variant in variants:
        for i in range(warm_up):
            variant.run(i)
    times_s: Mapping[str, list[float]] = {variant.name: [] for variant in variants}
    for i in range(rounds):
        for variant in variants:
            start_ns = clock.now_ns()
            variant.run(i)
            times_s[variant.name].append((clock.now_ns() - start_ns) / 1e9)
    first_s = median(times_s[variants[0].name])
    return [_row(variant, times_s[variant.name], first_s, threads) for variant in variants]


def session_variants(session: Session, inputs, name: str, each_exit: bool = False) -> list[Variant]:
    """Full depth, each exit forced if asked for, and the natural mix of a session over `inputs` in turn."""

    def timed(thresholds: list[float] | None) -> Callable[[int], object]:
        return lambda i: session.classify(inputs[i % len(inputs)], thresholds)

    depths = list(range(session.exits)) if each_exit else []
    blocks = session.manifest.blocks
    return [
        Variant(f"{name}, full depth", "none taken", timed(session.forced_thresholds(session.exits))),
        *(
            Variant(f"{name}, block {blocks[k] + 1}", "all at this one", timed(session.forced_thresholds(k)))
            for k in depths
        ),
        Variant(f"{name}, with exits", "as they come", timed(None)),
    ]


def _row(variant: Variant, times_s: list[float], first_s: float, threads: int) -> LatencyRow:
    return LatencyRow(
        name=variant.name,
        exits=variant.exits,
        threads=threads,
        n=len(times_s),
        median_s=median(times_s),
        p90_s=percentile(times_s, 90),
        p99_s=percentile(times_s, 99),
        ci95_s=bootstrap_interval(times_s),
        speedup=first_s / median(times_s),
    )

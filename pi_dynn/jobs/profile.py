"""Where the time of an answer goes, measured inside the network that gives it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pi_dynn.clock import Clock
from pi_dynn.jobs.operators import Work, count_work
from pi_dynn.profile_records import Profile, ProfileStep, Roofline
from pi_dynn.runtime.session import Session
from pi_dynn.runtime.timed_network import TimedNetwork, TimedRun
from pi_dynn.stats import bootstrap_interval, median

WARM_UP = 3


@dataclass(frozen=True)
class TimedRuns:
    """Answers of the network with marks, each with the same answer without them, one after the other in turns."""

    network: TimedNetwork
    runs: list[TimedRun]
    marked_s: list[float]
    plain_s: list[float]


def time_steps(
    session: Session, inputs: Sequence[Tensor], n: int, clock: Clock, thresholds: list[float] | None = None
) -> TimedRuns:
    """`n` answers over `inputs` (3, H, W) in turn, at the bundle's own thresholds if none are given."""
    network = session.timed_network
    limits = session.resolve_thresholds(thresholds)
    batches = [x.unsqueeze(0) for x in inputs]
    _warm_up(session, network, batches[0])
    found = TimedRuns(network, [], [], [])
    for i in range(n):
        x = batches[i % len(batches)]
        for marked in (True, False) if i % 2 else (False, True):  # neither is always the first to see the image
            start_ns = clock.now_ns()
            run = network.run(x, limits) if marked else session.answer(x, limits)
            taken_s = (clock.now_ns() - start_ns) / 1e9
            (found.marked_s if marked else found.plain_s).append(taken_s)
            if marked:
                found.runs.append(run)
    return found


def profile(session: Session, timed: TimedRuns, x: Tensor, roofline: Roofline | None) -> Profile:
    """Times, work and shares of every step; `x` (3, H, W) is any input, to count the operators with."""
    never = session.forced_thresholds(session.exits)
    work = count_work(timed.network, x.unsqueeze(0), never)
    ratios = [marked / plain for marked, plain in zip(timed.marked_s, timed.plain_s, strict=True)]
    return Profile(
        model=session.manifest.model,
        bundle=session.bundle.sha256,
        precision=session.manifest.precision,
        engine=session.engine,
        threads=session.threads,
        n=len(timed.runs),
        latency_s=median(timed.plain_s),
        disturbance=median(ratios),
        disturbance_ci95=bootstrap_interval(ratios),
        exit_counts=[sum(run.exit_index == k for run in timed.runs) for k in range(session.exits + 1)],
        blocks=session.manifest.blocks,
        steps=_steps(timed, work, roofline),
        roofline=roofline,
    )


def _steps(timed: TimedRuns, work: dict[int, Work], roofline: Roofline | None) -> list[ProfileStep]:
    """A row for every step that was taken at least once."""
    times = step_times(timed)
    in_all = sum(len(taken) * median(taken) for taken in times if taken)
    rows = []
    for number, taken in enumerate(times):
        if not taken:
            continue
        step, done = timed.network.steps[number], work.get(number, Work())
        float_macs = done.macs - done.int8_macs
        rows.append(
            ProfileStep(
                kind=step.kind,
                block_index=step.block_index,
                hits=len(taken),
                total_s=sum(taken),
                per_hit_s=median(taken),
                share=len(taken) * median(taken) / in_all,
                macs=done.macs,
                int8_macs=done.int8_macs,
                moved_bytes=done.moved_bytes,
                roof_s=roofline.least_s(float_macs, done.int8_macs, done.moved_bytes) if roofline else None,
            )
        )
    return rows


def step_times(timed: TimedRuns) -> list[list[float]]:
    """Seconds of every hit of every step."""
    times: list[list[float]] = [[] for _ in timed.network.steps]
    for run in timed.runs:
        for number, start_ns, stop_ns in run.times:
            times[number].append((stop_ns - start_ns) / 1e9)
    return times


def chrome_trace(timed: TimedRuns) -> dict:
    """The runs in the Trace Event Format, which chrome://tracing and ui.perfetto.dev show.

    Source: Trace Event Format (Google), "Complete events": ts and dur are microseconds.
    """
    origin_ns = timed.runs[0].times[0].start_ns
    events = []
    for number, run in enumerate(timed.runs):
        for index, start_ns, stop_ns in run.times:
            kind, block = timed.network.steps[index]
            events.append(
                {
                    "name": kind if block is None else f"{kind} {block + 1}",
                    "cat": kind,
                    "ph": "X",
                    "ts": (start_ns - origin_ns) / 1e3,
                    "dur": (stop_ns - start_ns) / 1e3,
                    "pid": 0,
                    "tid": 0,
                    "args": {"answer": number, "exit_index": run.exit_index},
                }
            )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _warm_up(session: Session, network: TimedNetwork, x: Tensor) -> None:
    """Visit every depth, for the first run of a graph prepares it."""
    for _ in range(WARM_UP):
        for k in range(session.exits + 1):
            network.run(x, session.forced_thresholds(k))
            session.answer(x, session.forced_thresholds(k))

"""A model of latency as a sum of blocks and exit checks: fitted and saved per machine, and checked against images.

The terms are those that a profile measures inside the network; the time outside of steps, that of the call itself,
is in the start. It predicts exits without timing each of them, also exits that a bundle does not have.
"""

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pi_dynn.clock import Clock
from pi_dynn.errors import CalibrationError
from pi_dynn.latency.profile import TimedRuns, step_times, time_steps
from pi_dynn.latency.records import LatencyCheck, LatencyModel
from pi_dynn.runtime.machine_cache import MachineCache
from pi_dynn.runtime.session import Session
from pi_dynn.stats import median
from pi_dynn.text import counted

MODELS = MachineCache("latency.json")  # one per bundle, engine and number of threads
_CHECK = ("exit norm", "head", "gate")
_LAST = ("final norm", "final head")
_BLOCK = ("filter", "MLP", "block", "stage")


def fit_latency_model(session: Session, inputs: Sequence[Tensor], n: int, clock: Clock) -> LatencyModel:
    """The model of this bundle on this machine, from `n` answers at full depth and `n` forced to each exit.

    A step's latency is its median at full depth. The time of an answer beyond its steps is added to the start, and
    all terms are scaled by the time without marks over that with marks: medians over pairs, which are robust to
    disturbances.
    """
    network = session.timed_network()
    depths = [session.forced_thresholds(k) for k in range(session.exits + 1)]
    runs = [time_steps(session, network, inputs, n, clock, limits) for limits in depths]
    block_s, check_s, last_s, start_s = _parts(runs[-1], session.manifest.depth)
    surplus_s, ratios = [], []
    for timed in runs:
        for run, marked_s, plain_s in zip(timed.runs, timed.marked_s, timed.plain_s, strict=True):
            surplus_s.append(marked_s - (run.times[-1].stop_ns - run.times[0].start_ns) / 1e9)
            ratios.append(plain_s / marked_s)
    scale = median(ratios)
    return LatencyModel(
        start_s=scale * (start_s + median(surplus_s)),
        block_s=[scale * time_s for time_s in block_s],
        check_s=scale * check_s,
        last_s=scale * last_s,
        bundle=session.bundle.sha256,
        engine=session.engine,
        threads=session.threads,
        torch=torch.__version__,
        machine=platform.machine(),
    )


def _parts(deep: TimedRuns, depth: int) -> tuple[list[float], float, float, float]:
    """Medians at full depth: every block, an exit check, the last answer, and the time before the first block."""
    block_s, checks_s, last_s, start_s = [0.0] * depth, [0.0], 0.0, 0.0
    done = -1  # the last block whose time is known
    for step, times_s in zip(deep.network.steps, step_times(deep), strict=True):
        time_s = median(times_s)
        if step.kind in _BLOCK and step.block_index is not None:
            # The time of a stage that could not be divided is shared equally by its blocks.
            blocks = range(min(done + 1, step.block_index), step.block_index + 1)
            for block in blocks:
                block_s[block] += time_s / len(blocks)
            done = step.block_index
        elif step.kind in _CHECK:
            checks_s[-1] += time_s
            if step.kind == "gate":
                checks_s.append(0.0)
        elif step.kind in _LAST:
            last_s += time_s
        else:
            start_s += time_s
    checks = len(checks_s) - 1
    return block_s, sum(checks_s) / checks if checks else 0.0, last_s, start_s


def check_latency_model(
    model: LatencyModel,
    session: Session,
    inputs: Sequence[Tensor],
    rounds: int,
    clock: Clock,
    thresholds: list[float] | None = None,
) -> LatencyCheck:
    """The model compared with the natural mix over `inputs`: the latency of each image is the median of `rounds`."""
    limits = session.resolve_thresholds(thresholds)
    times: list[list[float]] = [[] for _ in inputs]
    exits = [0] * len(inputs)
    for _ in range(rounds):
        for i, x in enumerate(inputs):
            start_ns = clock.now_ns()
            _, exits[i], _ = session.answer(x.unsqueeze(0), limits)
            times[i].append((clock.now_ns() - start_ns) / 1e9)
    latency_s = np.array([median(times_s) for times_s in times])
    left, predicted = np.array(exits), model.predict_s(session.manifest.blocks)
    predicted_s, measured_s = float(np.mean([predicted[k] for k in exits])), float(latency_s.mean())
    rows = [
        (block, predicted[k], float(latency_s[left == k].mean()) if (left == k).any() else None)
        for k, block in enumerate(session.manifest.blocks)
    ]
    return LatencyCheck(
        exits=rows,
        exit_counts=[int((left == k).sum()) for k in range(len(rows))],
        predicted_s=predicted_s,
        measured_s=measured_s,
        error=predicted_s / measured_s - 1.0,
    )


def save_latency_model(model: LatencyModel) -> Path:
    """Save the model for this machine, replacing an earlier one; returns the file."""
    MODELS.keep(model.to_dict(), model.bundle, model.engine, model.threads)
    return MODELS.path


def saved_latency_model(session: Session) -> LatencyModel:
    """The saved model of this bundle, engine and threads on this machine. Raises: CalibrationError if there is none."""
    try:
        return LatencyModel.from_dict(MODELS.get(session.bundle.sha256, session.engine, session.threads))
    except ValueError as error:  # of a damaged model, and of None
        raise CalibrationError(
            f"no latency model of this bundle with {session.engine} and {counted(session.threads, 'thread')} is saved "
            "on this machine: fit one with `pi-dynn profile --fit`"
        ) from error

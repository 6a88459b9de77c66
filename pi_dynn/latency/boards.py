"""Milliseconds on a board, predicted from what an answer takes on its emulated core. No measurement.

cycles = root of the sum over terms of ((cycles of the term) x (count of the term))², on one thread; a term is an
instruction, or a line that a level of data cache misses. A root of squares lies between the sum and the larger of two
terms: these cores compute during part of what they wait for memory. The cycles are fitted to published timings of real
boards by least squares of the relative error of the squares; the error that is stated is of predicting each network
from all others (leave-one-out).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import hypot

import numpy as np
from numpy.typing import NDArray

from pi_dynn.board import invalidating_changes
from pi_dynn.errors import InputError
from pi_dynn.latency.records import (
    Board,
    BoardBenchmark,
    BoardTimings,
    ExitCounts,
    PredictedExit,
    PredictedLatency,
    TimedNetwork,
)
from pi_dynn.power.estimate import power_model

CORES = 4  # of every board that is predicted
Counts = Mapping[str, float]  # by name of the term


@cache
def board_timings() -> BoardTimings:
    """The published timings with counts of the same networks, which `benchmarks/arm/public_timings.py` makes."""
    text = (resources.files("pi_dynn.latency") / "board_timings.json").read_text(encoding="utf-8")
    return BoardTimings.from_dict(json.loads(text))


@dataclass(frozen=True)
class BoardModel:
    """Cycles of each term on a board, and the error of predicting each network from the others, by its name."""

    board: Board
    cycles: dict[str, float]
    errors: dict[str, float]

    @property
    def mean_error(self) -> float:
        """Mean absolute error of leave-one-out, a share."""
        return float(np.mean(np.abs(list(self.errors.values()))))

    @property
    def worst_error(self) -> float:
        """Largest absolute error of leave-one-out, a share."""
        return float(np.max(np.abs(list(self.errors.values()))))

    def predict_s(self, counts: Counts) -> float:
        """Seconds of an answer that takes these counts, on one thread."""
        return hypot(*(cycles * counts[term] for term, cycles in self.cycles.items())) / self.board.clock_hz


def board_model(name: str) -> BoardModel:
    """The model of the board `name`, fitted to the published timings. Raises: InputError for an unknown one."""
    timings = board_timings()
    board = next((one for one in timings.boards if one.name == name), None)
    if board is None:
        known = ", ".join(one.name for one in timings.boards)
        raise InputError(f"no board {name!r} can be predicted: choose from {known}")
    networks = [one for one in timings.networks if name in one.measured_s]
    counts = np.array([[one.counts[board.core][term] for term in board.terms] for one in networks])
    cycles = np.array([one.measured_s[name] * board.clock_hz for one in networks])
    fitted = dict(zip(board.terms, _fit(counts, cycles).tolist(), strict=True))
    errors = {}
    for k, network in enumerate(networks):
        others = np.arange(len(networks)) != k
        errors[network.name] = hypot(*(counts[k] * _fit(counts[others], cycles[others]))) / cycles[k] - 1.0
    return BoardModel(board, fitted, errors)


def _fit(counts: NDArray[np.float64], cycles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cycles of each of T terms from counts (N, T) and cycles (N,) of N networks; a term that does not add has none."""
    squares, *_ = np.linalg.lstsq((counts / cycles[:, None]) ** 2, np.ones(len(cycles)))
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)), dtype=np.float64)


def predict_exits(model: BoardModel, counts: Sequence[ExitCounts], images: Sequence[int]) -> PredictedLatency:
    """The latency of every exit on a board, on its fastest engine, and the mean where `images` (K) leave at each.

    Raises: InputError where nothing was counted.
    """
    engines = list(dict.fromkeys(one.engine for one in counts))
    rows = {
        engine: [
            PredictedExit(one.exit_index, one.block_index, count, model.predict_s(one.counts))
            for one, count in zip((one for one in counts if one.engine == engine), images, strict=True)
        ]
        for engine in engines
    }
    if not rows:
        raise InputError(f"no engine can answer with this bundle on {model.board.title}")
    fastest = min(engines, key=lambda engine: rows[engine][-1].latency_s)
    exits = rows[fastest]
    total = sum(images)
    mean_s = sum(one.images * one.latency_s for one in exits) / total if total else exits[-1].latency_s
    power = power_model(model.board.title, CORES)
    return PredictedLatency(
        model.board.name,
        model.board.title,
        fastest,
        exits,
        mean_s,
        model.mean_error,
        model.worst_error,
        (power.full_w - power.idle_w) / CORES,
    )


def timed_network(benchmark: BoardBenchmark, counts: Mapping[str, Sequence[ExitCounts]]) -> TimedNetwork:
    """What somebody measured on a board, for the fit; `counts` are of the same bundle, by core.

    The time is that of the clock the published ones are at.

    Raises: InputError saying why it cannot be used.
    """
    reasons = unfit_reasons(benchmark)
    if reasons:
        raise InputError(f"{benchmark.bundle} on {benchmark.before.model} is of no use for predictions: {reasons[0]}")
    board, hertz = _board_called(benchmark.before.model), benchmark.before.frequency_max_hz
    assert board is not None and hertz is not None and benchmark.full_depth_s is not None  # as `unfit_reasons` found
    measured_s = {board.name: benchmark.full_depth_s * hertz / board.clock_hz}
    deepest = {
        core: min((one for one in rows if one.exit_index == rows[-1].exit_index), key=_instructions)
        for core, rows in counts.items()
    }
    name = f"{benchmark.bundle} on {benchmark.before.model}"
    return TimedNetwork(name, benchmark.image_size, measured_s, {core: one.counts for core, one in deepest.items()})


def unfit_reasons(benchmark: BoardBenchmark) -> list[str]:
    """Why a benchmark cannot be taken into the fit; empty if it can."""
    before, reasons = benchmark.before, []
    if _board_called(before.model) is None:
        titles = " and ".join(board.title for board in board_timings().boards)
        reasons.append(f"it is of {before.model or 'an unknown board'}; predictions are for {titles}")
    if benchmark.full_depth_s is None:
        reasons.append("no full depth on one thread: measure with --threads 1")
    if before.frequency_max_hz is None:
        reasons.append("the highest clock is unknown")
    if before.governor != "performance":
        reasons.append(f"the governor is {before.governor}: set it to performance")
    return [*reasons, *invalidating_changes(before, benchmark.after)]


def _board_called(model: str) -> Board | None:
    return next((board for board in board_timings().boards if model.startswith(board.title)), None)


def _instructions(counts: ExitCounts) -> int:
    return counts.counts["instructions"]


def pretrained_latency_s(model: BoardModel, name: str, image_size: int, form: str) -> float | None:
    """Predicted seconds at full depth of what `learn` makes of a pretrained network; None where it was not counted.

    `form` is that of the bundle, as its manifest has it.
    """
    counts = board_timings().pretrained[form].get(f"{name}@{image_size}")
    return None if counts is None else model.predict_s(counts[model.board.core])


def pretrained_within(model: BoardModel, budget_s: float, form: str) -> list[tuple[str, int]]:
    """Pretrained networks and image sizes within `budget_s` at full depth in a form, the slowest first: it knows most.

    Raises: InputError where none is.
    """
    latency_s = {}
    for entry in board_timings().pretrained[form]:
        name, _, size = entry.partition("@")
        predicted_s = pretrained_latency_s(model, name, int(size), form)
        if predicted_s is not None:
            latency_s[name, int(size)] = predicted_s
    fitting = [key for key, predicted_s in latency_s.items() if predicted_s <= budget_s]
    if not fitting:
        least_s = min(latency_s.values())
        raise InputError(
            f"--budget-ms {1e3 * budget_s:g}: the fastest pretrained network is predicted to take "
            f"{1e3 * least_s:.1f} ms on a {model.board.title}: give more"
        )
    return sorted(fitting, key=lambda key: -latency_s[key])

"""A profile of the network's steps, compared with the roofline of the machine."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pi_dynn.board import BoardSnapshot
from pi_dynn.clock import Clock
from pi_dynn.latency.records import Profile, ProfileStep, Roofline
from pi_dynn.runtime.engines import INT8_ENGINES, using_engine
from pi_dynn.runtime.session import Session
from pi_dynn.runtime.timed_network import TimedNetwork, TimedRun
from pi_dynn.stats import bootstrap_interval, median, percentile

# Multiply-adds of one core in one cycle, fp32 and int8 (engines but qnnpack).
# Source: LLVM's scheduling models AArch64SchedA57.td and AArch64SchedNeoverseN1.td, whose pipes these cores have:
# one 4-lane fmla a cycle on the A72, smull/smlal/sadalp at 16 per 2 cycles; two fmla and two sdot on the A76.
MACS_PER_CYCLE = {"Cortex-A72": (4, 8), "Cortex-A76": (8, 32)}
QNNPACK_MACS_PER_CYCLE = 4  # smlal.4s, one a cycle on both cores

_SIDE = 512  # rows and columns of the products timed: large enough that starting them costs nothing
_COPIED = 32 << 20  # bytes, more than the caches of these machines hold
_CACHED = 128 << 10  # bytes, which they do hold; the best of several sizes would be no different
_ROUNDS = 12


def measure_roofline(engine: str, threads: int, board: BoardSnapshot, clock: Clock) -> Roofline:
    """The roofline of this machine for a network on `engine`, with `threads` threads.

    Memory is always timed. Arithmetic is from the data sheet for a Cortex-A72 or A76 of known frequency; on other
    processors the best of some matrix products is timed.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        bytes_per_s, cache_bytes_per_s = (_copied_per_s(size, clock) for size in (_COPIED, _CACHED))
        sheet = MACS_PER_CYCLE.get(board.core or "")
        if sheet is not None and board.frequency_max_hz:
            int8: float = QNNPACK_MACS_PER_CYCLE if engine == "qnnpack" else sheet[1]
            scale = board.frequency_max_hz * threads
            source = f"data sheet of the {board.core}, memory timed"
            return Roofline(sheet[0] * scale, int8 * scale, bytes_per_s, threads, source, cache_bytes_per_s)
        fp32 = _SIDE**3 / _best_s(_float_product(), clock)
        int8 = _SIDE**3 / _best_s(_int8_product(engine), clock) if engine in INT8_ENGINES else fp32
        return Roofline(fp32, int8, bytes_per_s, threads, "plain products and copies, timed", cache_bytes_per_s)
    finally:
        torch.set_num_threads(before)


def _copied_per_s(size: int, clock: Clock) -> float:
    """Bytes read and written in a second by copies of `size` bytes."""
    copied = torch.zeros(size, dtype=torch.uint8)
    target = torch.empty_like(copied)
    times = max(1, _COPIED // size // 8)

    def copy() -> None:
        for _ in range(times):
            target.copy_(copied)

    return 2 * size * times / _best_s(copy, clock)


def _float_product() -> Callable[[], object]:
    a, b = torch.randn(_SIDE, _SIDE), torch.randn(_SIDE, _SIDE)
    return lambda: torch.mm(a, b)


def _int8_product(engine: str) -> Callable[[], object]:
    x, weight = torch.randn(_SIDE, _SIDE), torch.randn(_SIDE, _SIDE)
    with using_engine(engine):
        packed = torch.ops.quantized.linear_prepack(torch.quantize_per_tensor(weight, 0.05, 0, torch.qint8), None)
    return lambda: torch.ops.quantized.linear_dynamic(x, packed, engine != "qnnpack")


def _best_s(run: Callable[[], object], clock: Clock) -> float:
    """The tenth percentile of the time of `run`: near the best, but robust to one outlier."""
    times = []
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            start_ns = clock.now_ns()
            run()
            times.append((clock.now_ns() - start_ns) / 1e9)
    return percentile(times, 10)


_quantized = torch.ops.quantized
INT8_PRODUCTS = {  # operators, and the functions that unpack their weights, output channels first
    _quantized.linear_dynamic.default: _quantized.linear_unpack,
    _quantized.linear.default: _quantized.linear_unpack,
    _quantized.linear_relu.default: _quantized.linear_unpack,
    _quantized.conv2d.new: _quantized.conv2d_unpack,
    _quantized.conv2d_relu.new: _quantized.conv2d_unpack,
}


@dataclass
class Work:
    """The work of one hit of a step: multiply-adds and bytes moved."""

    macs: int = 0
    int8_macs: int = 0
    moved_bytes: int = 0


def count_work(network: TimedNetwork, x: Tensor, thresholds: list[float]) -> dict[int, Work]:
    """The work of every step of an answer for `x` (1, 3, H, W), by the index of the step."""
    counter = _Counter()
    with counter:
        network.run_marked(x, thresholds)
    counter.work.pop(-1, None)  # after the last step
    return counter.work


class _Counter(TorchDispatchMode):
    """Counts the operators between the marks."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch, which has no type for it
        self.work: dict[int, Work] = {}
        self._now = Work()

    def __torch_dispatch__(
        self, operator: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = operator(*args, **(kwargs or {}))
        if operator is torch.ops.aten.scalar_tensor.default:
            self._now = self.work.setdefault(int(args[0]), Work())
            return result
        if operator in INT8_PRODUCTS:
            weight = INT8_PRODUCTS[operator](args[1])[0]
            macs = result.numel() * weight[0].numel()
            self._now.int8_macs += macs
            self._now.moved_bytes += weight.numel()
        else:
            macs = _macs(operator, args, kwargs or {}, result)
        self._now.macs += macs
        if not operator._schema.returns or not _is_view(operator):
            self._now.moved_bytes += sum(tensor.nbytes for tensor in _tensors([*args, result]))
        return result


def _macs(operator: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], result: object) -> int:
    """Multiply-adds from torch's own table of operators; 0 for operators without products."""
    formula = flop_registry.get(operator.overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=result)) // 2


def _is_view(operator: OpOverload) -> bool:
    """Whether an operator returns its input's memory in another shape, without moving data."""
    aliases = [value.alias_info for value in operator._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _tensors(values: Iterable[object]) -> list[Tensor]:
    tensors = [value for value in values if isinstance(value, Tensor)]
    return tensors + [one for value in values if isinstance(value, (list, tuple)) for one in _tensors(value)]


WARM_UP = 3


@dataclass(frozen=True)
class TimedRuns:
    """Answers of the network with marks, each paired with the same answer without marks, in alternating order."""

    network: TimedNetwork
    runs: list[TimedRun]
    marked_s: list[float]
    plain_s: list[float]


def time_steps(
    session: Session,
    network: TimedNetwork,
    inputs: Sequence[Tensor],
    n: int,
    clock: Clock,
    thresholds: list[float] | None = None,
) -> TimedRuns:
    """`n` answers over `inputs` (3, H, W) in turn, at the bundle's own thresholds if none are given.

    `network` is the session's `timed_network`.
    """
    limits = session.resolve_thresholds(thresholds)
    batches = [x.unsqueeze(0) for x in inputs]
    _warm_up(session, network, batches[0])
    timed = TimedRuns(network, [], [], [])
    for i in range(n):
        x = batches[i % len(batches)]
        for marked in (True, False) if i % 2 else (False, True):  # the first run of an image is slower
            start_ns = clock.now_ns()
            run = network.run(x, limits) if marked else session.answer(x, limits)
            elapsed_s = (clock.now_ns() - start_ns) / 1e9
            (timed.marked_s if marked else timed.plain_s).append(elapsed_s)
            if isinstance(run, TimedRun):
                timed.runs.append(run)
    return timed


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
    """A row for every step that was run at least once."""
    times = step_times(timed)
    in_all = sum(len(times_s) * median(times_s) for times_s in times if times_s)
    rows = []
    for number, times_s in enumerate(times):
        if not times_s:
            continue
        step, done = timed.network.steps[number], work.get(number, Work())
        float_macs = done.macs - done.int8_macs
        rows.append(
            ProfileStep(
                kind=step.kind,
                block_index=step.block_index,
                operation=step.operation or None,
                hits=len(times_s),
                total_s=sum(times_s),
                per_hit_s=median(times_s),
                share=len(times_s) * median(times_s) / in_all,
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


def chrome_trace(timed: TimedRuns) -> dict[str, Any]:
    """The runs in the Trace Event Format, which chrome://tracing and ui.perfetto.dev show.

    Source: Trace Event Format (Google), "Complete events": ts and dur are microseconds.
    """
    origin_ns = timed.runs[0].times[0].start_ns
    events = []
    for number, run in enumerate(timed.runs):
        for index, start_ns, stop_ns in run.times:
            kind, block, operation = timed.network.steps[index]
            events.append(
                {
                    "name": operation or (kind if block is None else f"{kind} {block}"),
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
    """Run every depth, because the first runs of a graph compile it."""
    for _ in range(WARM_UP):
        for k in range(session.exits + 1):
            network.run(x, session.forced_thresholds(k))
            session.answer(x, session.forced_thresholds(k))

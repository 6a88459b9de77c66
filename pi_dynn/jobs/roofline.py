"""How fast this machine could be at best: what its core's data sheet says, or what a plain product reaches."""

from collections.abc import Callable

import torch

from pi_dynn.board import BoardSnapshot
from pi_dynn.clock import Clock
from pi_dynn.profile_records import Roofline
from pi_dynn.runtime.engines import INT8_ENGINES, using_engine
from pi_dynn.stats import percentile

# Multiply-adds of one core in one cycle, fp32 and int8 (engines but qnnpack).
# Source: LLVM's scheduling models AArch64SchedA57.td and AArch64SchedNeoverseN1.td, whose pipes these cores have:
# one 4-lane fmla a cycle on the A72, smull/smlal/sadalp at 16 per 2 cycles; two fmla and two sdot on the A76.
MACS_PER_CYCLE = {"Cortex-A72": (4, 8), "Cortex-A76": (8, 32)}
QNNPACK_MACS_PER_CYCLE = 4  # smlal.4s, one a cycle on both cores

_SIDE = 512  # rows and columns of the products timed: large enough that starting them costs nothing
_COPIED = 32 << 20  # bytes, more than the caches of these machines hold
_ROUNDS = 12


def measure_roofline(engine: str, threads: int, board: BoardSnapshot, clock: Clock) -> Roofline:
    """The roofline of this machine for a network on `engine`, with `threads` threads.

    Memory is always timed. Arithmetic is the data sheet's for a Cortex-A72 or A76 of known frequency, the best
    of some plain products elsewhere.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        copied = torch.zeros(_COPIED, dtype=torch.uint8)
        target = torch.empty_like(copied)
        bytes_per_s = 2 * _COPIED / _best_s(lambda: target.copy_(copied), clock)
        sheet = MACS_PER_CYCLE.get(board.core or "")
        if sheet is not None and board.frequency_max_hz:
            int8 = QNNPACK_MACS_PER_CYCLE if engine == "qnnpack" else sheet[1]
            scale = board.frequency_max_hz * threads
            source = f"data sheet of the {board.core}, memory timed"
            return Roofline(sheet[0] * scale, int8 * scale, bytes_per_s, threads, source)
        fp32 = _SIDE**3 / _best_s(_float_product(), clock)
        int8 = _SIDE**3 / _best_s(_int8_product(engine), clock) if engine in INT8_ENGINES else fp32
        return Roofline(fp32, int8, bytes_per_s, threads, "plain products and a copy, timed")
    finally:
        torch.set_num_threads(before)


def _float_product() -> Callable[[], object]:
    a, b = torch.randn(_SIDE, _SIDE), torch.randn(_SIDE, _SIDE)
    return lambda: torch.mm(a, b)


def _int8_product(engine: str) -> Callable[[], object]:
    x, weight = torch.randn(_SIDE, _SIDE), torch.randn(_SIDE, _SIDE)
    with using_engine(engine):
        packed = torch.ops.quantized.linear_prepack(torch.quantize_per_tensor(weight, 0.05, 0, torch.qint8), None)
    return lambda: torch.ops.quantized.linear_dynamic(x, packed, engine != "qnnpack")


def _best_s(run: Callable[[], object], clock: Clock) -> float:
    """A tenth percentile: near the best, without being one lucky reading."""
    times = []
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            start_ns = clock.now_ns()
            run()
            times.append((clock.now_ns() - start_ns) / 1e9)
    return percentile(times, 10)

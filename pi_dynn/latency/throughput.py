"""Images a second at the largest batch of a power of two that fits into memory, as published for RecNeXt and LSNet.

Source: suous/RecNeXt, speed_gpu.py: 5 s to warm up, 10 s timed, the mean of the batches.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from pi_dynn.clock import Clock
from pi_dynn.deploy.fuse import fuse_norms
from pi_dynn.errors import InputError
from pi_dynn.latency.records import Throughput
from pi_dynn.models import create_model
from pi_dynn.runtime.session import Session

TIMED_S = 10.0
MOST_IMAGES = 2048  # the published batch
MEMORY_SHARE = 0.5  # of the free memory: the rest is for other programs, and for what a larger batch adds
_RESET_PEAK = "5"  # what Linux wants in clear_refs, proc(5)

Forward = Callable[[Tensor], object]


def session_throughput(session: Session, clock: Clock, batch_size: int | None, timed_s: float) -> Throughput:
    """The throughput of a session's network at full depth; a batch size of None finds the largest."""

    def forward(x: Tensor) -> object:
        return session.answer_batch(x, session.forced_thresholds(session.exits))

    name = f"{session.manifest.precision} {session.engine}, full depth"
    image = torch.zeros(1, 3, session.preprocess.size, session.preprocess.size)
    return _throughput(name, forward, image, (clock, batch_size, timed_s), session.threads)


def device_throughput(
    session: Session, device: str, clock: Clock, batch_size: int | None, timed_s: float
) -> Throughput:
    """The same of the network on another device, in floats, norms folded, with other weights, which take as long.

    Raises: InputError for a device that is not there.
    """
    manifest = session.manifest
    try:
        image = torch.zeros(1, 3, session.preprocess.size, session.preprocess.size, device=device)
    except (RuntimeError, AssertionError) as error:  # torch has either for a device that it was not built for
        raise InputError(
            f"device {device!r} is not there ({str(error).splitlines()[0]}): leave --device out"
        ) from error
    model: nn.Module = fuse_norms(create_model(manifest.model, **manifest.arguments).eval()).to(device)
    name = f"fp32 {torch.cuda.get_device_name(image.device) if image.is_cuda else device}, full depth, network alone"
    return _throughput(name, model, image, (clock, batch_size, timed_s), torch.get_num_threads())


def _throughput(
    name: str, forward: Forward, image: Tensor, how: tuple[Clock, int | None, float], threads: int
) -> Throughput:
    clock, batch_size, timed_s = how

    def run(size: int) -> float:
        """Seconds of one batch."""
        x = image.expand(size, -1, -1, -1).contiguous()
        with torch.inference_mode():
            start_ns = clock.now_ns()
            forward(x)
            if image.is_cuda:
                torch.cuda.synchronize(image.device)
            return (clock.now_ns() - start_ns) / 1e9

    torch.set_num_threads(threads)
    size = largest_batch(run, on_gpu=image.is_cuda) if batch_size is None else batch_size
    warm_s = 0.0
    while warm_s < timed_s / 2:
        warm_s += run(size)
    times_s = [run(size)]
    while sum(times_s) < timed_s:
        times_s.append(run(size))
    return Throughput(name, threads, size, len(times_s) * size / sum(times_s), len(times_s), sum(times_s))


def largest_batch(
    run: Callable[[int], object],
    on_gpu: bool = False,
    free_bytes: Callable[[], int] = lambda: int(psutil.virtual_memory().available),
    most: int | None = None,
) -> int:
    """The largest power of two whose batch fits: on a GPU found by trying, else by the memory that half of it takes.

    A machine that runs out of memory stops the program, or another one; so a batch there is not tried to see whether it
    fits. Where the memory of a batch cannot be told (no Linux) it is taken to be none.
    """
    size = 1
    run(size)
    while size < (most or MOST_IMAGES):
        if on_gpu:
            try:
                run(2 * size)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                break
        elif 2 * memory_of(partial(run, size)) > MEMORY_SHARE * free_bytes():
            break
        size *= 2
    return size


def memory_of(work: Callable[[], object]) -> int:
    """By how many bytes the work raises the greatest memory of this process; 0 where Linux does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
        before: int = psutil.Process().memory_info().rss
    except OSError:
        work()
        return 0
    work()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return max(0, int(status["VmHWM"].split()[0]) * 1024 - before)

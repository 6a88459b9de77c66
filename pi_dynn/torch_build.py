"""Facts about the installed torch, without importing it: on the wrong processor the import alone kills Python."""

import functools
import os
import platform
import sys
from collections.abc import MutableMapping, Sequence
from importlib import metadata
from pathlib import Path

from pi_dynn.errors import TorchUnusable

CURE = "pip install 'torch>=2.7,<2.10'"
# Their libraries use LSE atomics without a check: pytorch issues 146792 and 176993, fixed in 2.7 and 2.11.
_NEEDS_ATOMICS = ((2, 6), (2, 10))


def check_torch(
    root: str | Path = "/", machine: str | None = None, installed: tuple[str, Sequence[str]] | None = None
) -> None:
    """Raise TorchUnusable if importing torch would end in "Illegal instruction" on this processor.

    That is torch 2.6 and 2.10 on cores before Armv8.1, as in a Raspberry Pi 4 or older. `installed` is torch's version
    and what its wheel requires, looked up if it is not given.
    """
    if (machine or platform.machine()) not in ("aarch64", "arm64"):
        return
    version, _ = installed or _installed()
    if _release(version) in _NEEDS_ATOMICS and not _has_atomics(Path(root)):
        raise TorchUnusable(f"torch {version} dies with an illegal instruction on this processor: {CURE}")


def cuda_hint(machine: str | None = None, installed: tuple[str, Sequence[str]] | None = None) -> str | None:
    """What to do about a CUDA build of torch on an Arm board, where it is gigabytes of no use; None without one."""
    if (machine or platform.machine()) not in ("aarch64", "arm64"):
        return None
    version, requirements = installed or _installed()
    # CPU wheels for aarch64 name CUDA as well, for x86_64 only.
    if "+cu" in version or any(line.startswith("nvidia-") and "x86_64" not in line for line in requirements):
        return f"torch {version} is a CUDA build, which a Pi cannot use: {CURE}"
    return None


def size_thread_teams(
    arguments: Sequence[str], machine: str | None = None, environ: MutableMapping[str, str] = os.environ
) -> None:
    """Set OMP_NUM_THREADS from `--threads N` before torch is loaded; a user's own value wins.

    Arm Compute Library sizes its team when it loads, and `torch.set_num_threads` does not reach it afterwards.
    """
    if (machine or platform.machine()) not in ("aarch64", "arm64") or "torch" in sys.modules:
        return
    words = [word for argument in arguments for word in argument.split("=", 1)]
    for option, value in zip(words, words[1:], strict=False):
        if option == "--threads" and value.isdigit() and int(value) > 0:
            environ.setdefault("OMP_NUM_THREADS", value)


@functools.cache
def _installed() -> tuple[str, Sequence[str]]:
    try:
        torch = metadata.distribution("torch")
    except metadata.PackageNotFoundError:
        return "", ()
    return torch.version, tuple(torch.requires or ())


def torch_version() -> str:
    """The version of the installed torch; empty without one."""
    return _installed()[0]


def _release(version: str) -> tuple[int, ...]:
    parts = version.split("+")[0].split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


def _has_atomics(root: Path) -> bool:
    """Whether every core has the atomics of Armv8.1; True if that is unknown."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return True
    features = [line.partition(":")[2].split() for line in lines if line.startswith("Features")]
    return all("atomics" in words for words in features)

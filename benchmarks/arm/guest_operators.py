"""Runs on the emulated core: counts the instructions of every operator of one answer.

    guest_operators.py COUNTS ENGINE BUNDLE

Prints a JSON line for each operator and shape: its name, how often it is called, and the instructions of all calls.
What two marks take with nothing between them is taken off; the call from Python is not, a few thousand instructions.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import torch
from marks import WARM_UP, count, mark
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pi_dynn.runtime.bundle import load_bundle


class Counting(TorchDispatchMode):
    """Puts a mark before and after every operator that TorchScript calls."""

    def __init__(self, counts) -> None:
        super().__init__()
        self.counts = counts
        self.calls, self.instructions = Counter(), Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        before = sum(mark(self.counts).values())
        result = operator(*args, **(kwargs or {}))
        after = sum(mark(self.counts).values())
        shapes = " ".join("x".join(map(str, a.shape)) for a in args if isinstance(a, Tensor) and a.dim() > 0)
        name = f"{operator.overloadpacket.__name__} {shapes}"
        self.calls[name] += 1
        self.instructions[name] += after - before
        return result


def main(counts_path: str, engine: str, path: str) -> None:
    torch.set_num_threads(1)
    bundle = load_bundle(path)
    network, size = bundle.load_network(engine), bundle.manifest.preprocess.size
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with Path(counts_path).open() as counts, torch.inference_mode(), torch.jit.optimized_execution(False):
        for _ in range(WARM_UP):
            network(x, [])
        with Counting(counts) as counting:
            network(x, [])
        own = sum(count(lambda: None, counts).values())
    for name, calls in counting.calls.items():
        instructions = counting.instructions[name] - calls * own
        print(json.dumps({"operator": name, "calls": calls, "instructions": instructions}))


if __name__ == "__main__":
    main(*sys.argv[1:])

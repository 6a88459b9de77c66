"""What a run leaves on disk so that it can go on: states written whole or not at all, a log of JSON lines."""

import copy
import json
import os
import time
from pathlib import Path

import torch
from torch import nn


class Average:
    """An exponential moving average of a model's weights, which follows fast at first."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.source, self.decay = model, decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        own, new = list(self.model.parameters()), list(self.source.parameters())
        torch._foreach_lerp_(own, new, 1 - decay)


def save_state(path: Path, state: dict) -> None:
    """Write tensors and numbers; what was there before survives a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(path)


def load_state(path: Path) -> dict | None:
    """What `save_state` wrote, on the CPU; None where there is none."""
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def append_line(path: Path, record: dict) -> None:
    """One JSON line more in a log, and on the screen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"time": time.strftime("%Y-%m-%d %H:%M:%S")} | record)
    with path.open("a") as stream:
        stream.write(line + "\n")
    print(line, flush=True)

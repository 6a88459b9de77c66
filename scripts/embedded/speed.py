#!/usr/bin/env python3
"""Images per second of one core's time: whole training steps of every stage, and what the teachers answer.

    python scripts/embedded/speed.py

On noise, so no data are needed. The time is the process's own, which other work beside it changes little.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads its OpenMP

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from batches import Batch, ViewSource
from pack import MEASURED_AT, TRAINING_SETS, Packed
from pretrain import Distiller, first_output, open_run, task_teacher, train_step
from stages import STAGES, Stage
from student import new_student
from targets import COMPONENTS, Components
from teacher_features import FEATURES, Teacher

from pi_dynn.runtime.bundle import load_bundle

CPU = torch.device("cpu")
CLASSES = {"tiny_imagenet": 200, "cifar10": 10, "aid": 30, "rsscn7": 7}  # UC Merced's are those of lite0


def rate(work: Callable[[], object], images: int, seconds: float) -> float:
    """Images per second of this process's time, over at least so many of them, after one go to warm up."""
    work()
    begin, done, spent = time.process_time(), 0, -1.0
    while spent < seconds:
        work()
        done, spent = done + images, time.process_time() - begin
    return done / spent


def noise_sets() -> list[Packed]:
    """The sets that train, each with its number of classes and one image."""
    names = CLASSES | {"ucm_train": 0}
    own = load_bundle("lite0").manifest.labels
    labels = {name: [str(number) for number in range(count)] or own for name, count in names.items()}
    return [Packed(name, np.zeros((1, 3, 8, 8), np.uint8), np.zeros(1), labels[name]) for name in TRAINING_SETS]


def noise_batch(stage: Stage, first: int, classes: int) -> Batch:
    """A batch of noise, all of UC Merced's first class."""
    images = torch.rand(stage.batch_size, 3, stage.image_size, stage.image_size) * 255
    foreign = torch.zeros(stage.batch_size, classes, dtype=torch.bool)
    return Batch(images, torch.rand(stage.batch_size, FEATURES), torch.full((stage.batch_size,), first), foreign)


def stage_rate(
    stage: Stage, sets: list[Packed], teacher: Teacher, task: torch.nn.Module | None, amp: bool, seconds: float
) -> float:
    """Whole training steps of a stage."""
    with tempfile.TemporaryDirectory() as folder:
        source = ViewSource(sets, {}, {}, Path(folder), (0, 0), CPU, stage.smallest_crop)
        run = open_run(replace(stage, after=None), source, Path(folder), CPU)
    if stage.weights.tokens:
        run.plain = new_student("plain", stage.image_size, 2)
    offsets = source.offsets
    batch = noise_batch(stage, offsets[TRAINING_SETS.index("ucm_train")], offsets[-1])
    components = Components(torch.zeros(FEATURES), torch.randn(FEATURES, COMPONENTS) / FEATURES**0.5)
    distil = Distiller(components, teacher, first_output(offsets), task, amp)
    return rate(lambda: train_step(run, distil, batch, 0.5), stage.batch_size, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of computing, a row [default: %(default)s]")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sets, teacher = noise_sets(), Teacher(CPU)
    lite0 = task_teacher("lite0", sets, CPU)
    for stage in STAGES:
        task = lite0 if stage.weights.task else None
        plain, amp = (stage_rate(stage, sets, teacher, task, amp, seconds) for amp in (False, True))
        print(f"{stage.name}: {plain:.0f}, with --amp {amp:.0f}", flush=True)
    with torch.inference_mode():
        for size in (96, 128):
            x = torch.rand(64, 3, size, size) * 255
            print(f"teacher at {size} px: {rate(lambda x=x: teacher(x), 64, seconds):.0f}", flush=True)
        x = torch.randn(64, 3, MEASURED_AT, MEASURED_AT)
        print(f"lite0 in batches of 64: {rate(lambda: lite0(x), 64, seconds):.0f}", flush=True)


if __name__ == "__main__":
    main()

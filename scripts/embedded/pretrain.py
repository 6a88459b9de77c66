#!/usr/bin/env python3
"""Pretrain the 12-192 by distillation, in stages of growing image size, in pieces of any length.

    python scripts/embedded/pack.py --data DATA --packed runs/embedded/packed
    python scripts/embedded/pretrain.py --packed runs/embedded/packed --out runs/embedded --minutes 10

Each call goes on where the last one stopped, for at most --minutes. A stage sees as many views as --plan gives it,
in millions, and the learning rate follows a cosine over them: a slow or busy machine takes longer and does the same.
More views later make a finished stage go on, at the rate that the longer cosine has there. After a stage
OUT/STAGE.safetensors holds the moving average of its weights, and its linear probe is in OUT/log.jsonl.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads its OpenMP

import argparse
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from importlib import resources
from pathlib import Path
from statistics import fmean

import torch
from batches import Batch, ViewSource
from growth import fit_filters
from pack import MEASURED_AT, TRAINING_SETS, Packed, open_packed
from probe import accuracy_by_depth, network, normalised, probe_network
from safetensors.torch import load_file, save_file
from stages import STAGES, Stage
from state import Average, append_line, load_state, save_state
from student import answers, new_student, start_from
from targets import (
    COMPONENTS,
    IMAGENET_CLASSES,
    Components,
    Targets,
    exits_loss,
    fit_components,
    heads_loss,
    mixed,
    sample_features,
    task_loss,
    tokens_loss,
)
from teacher_features import Teacher
from torch import Tensor, nn

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.deploy.unpacked import weights_to_start_from
from pi_dynn.runtime.archive import SHIPPED
from pi_dynn.train.networks import open_teacher
from pi_dynn.train.processes import keep_freed_memory

VIEW_SEED = 0  # of the fixed views, for which the teacher's answers are kept
VIEWS = {"tiny_imagenet": 1, "cifar10": 1, "aid": 2, "rsscn7": 2, "ucm_train": 4}  # times --views
PLAN = "plain_64=2,distilled_128=1,aerial_128=0.4,task_128=0.05"
SAVE_EVERY_S, LOG_EVERY_S = 120, 60
AVERAGE_DECAY = 0.998
FITTED_ON = 3_000  # views that the filters of a grown network are fitted to
NEVER_DECAYED = ("complex_weight", "pos_embed", "token")


class Run:
    """One stage under way: student, moving average, optimiser, and how far it has come."""

    def __init__(self, stage: Stage, model: nn.Module, out: Path) -> None:
        self.stage, self.model = stage, model
        self.path, self.weights = out / f"{stage.name}.state.pt", out / f"{stage.name}.safetensors"
        self.average = Average(model, AVERAGE_DECAY)
        self.optimizer = optimizer_of(model, stage)
        self.counts = {"step": 0, "epoch": 0, "batch": 0, "trained_s": 0.0, "cpu_s": 0.0}
        self.plain: nn.Module | None = None  # the student has grown from it: its patches are followed

    @property
    def seen(self) -> int:
        """Views the stage has been trained on."""
        return self.counts["step"] * self.stage.batch_size

    def restore(self) -> None:
        """Go on from the state on disk, if there is one."""
        saved = load_state(self.path)
        if saved:
            self.model.load_state_dict(saved["model"])
            self.average.model.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.counts |= saved["counts"]

    def save(self) -> None:
        parts = {"model": self.model, "average": self.average.model, "optimizer": self.optimizer}
        save_state(self.path, {name: part.state_dict() for name, part in parts.items()} | {"counts": self.counts})


def optimizer_of(model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """AdamW; norms, biases, positions, tokens and filters are not decayed."""
    named = list(model.named_parameters())
    kept = [p for key, p in named if p.ndim < 2 or any(part in key for part in NEVER_DECAYED)]
    decayed = [p for key, p in named if not (p.ndim < 2 or any(part in key for part in NEVER_DECAYED))]
    groups = [{"params": decayed, "weight_decay": stage.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=stage.lr, fused=True)


def learning_rate(stage: Stage, step: int, progress: float) -> float:
    """A cosine over `progress` from 0 to 1, after a linear warm-up counted in steps."""
    cosine = (1 + torch.cos(torch.tensor(min(1.0, progress) * torch.pi)).item()) / 2
    return (stage.final_lr + (stage.lr - stage.final_lr) * cosine) * min(1.0, (step + 1) / stage.warmup_steps)


def open_run(stage: Stage, source: ViewSource, out: Path, device: torch.device, init: Path | None = None) -> Run:
    """The stage as it was left, or at its beginning; `init` has the weights to begin with where no stage does.

    The classes of a network of UC Merced alone are put where those of all sets have them.
    """
    outputs = COMPONENTS + IMAGENET_CLASSES + source.offsets[-1]
    run = Run(stage, new_student(stage.form, stage.image_size, outputs, stage.exits, device), out)
    before = weights_before(stage, out, init)
    state = {} if before is None else load_file(before)
    if state and "cls_token" not in state and stage.weights.tokens > 0:
        run.plain = network(before, "plain", stage.image_size, None).to(device).eval()
    if run.path.exists():
        run.restore()
    elif state:
        start_from(run.model, state, first_output(source.offsets))
        if run.plain is not None:
            images = source.batch(source.order(0)[:FITTED_ON], stage.image_size).images
            fit_filters(run.model, run.plain, normalised(images))
        run.average.model.load_state_dict(run.model.state_dict())
    return run


def first_output(offsets: list[int]) -> int:
    """Where the outputs for UC Merced's classes begin."""
    return COMPONENTS + IMAGENET_CLASSES + offsets[TRAINING_SETS.index("ucm_train")]


def weights_before(stage: Stage, out: Path, init: Path | None) -> Path | None:
    """The file a stage starts from: the end of the stage before, `init` where there is none, None for nothing."""
    before = out / f"{stage.after}.safetensors"
    return before if stage.after is not None and (before.exists() or init is None) else init


def open_components(source: ViewSource, cache: Path, device: torch.device) -> Components:
    """What the teacher's features are turned into: fitted once and kept in `cache`, so all stages learn the same."""
    path = cache / "components.safetensors"
    if not path.exists():
        visited = [number for number, data in enumerate(source.sets) if source.repeats.get(data.name, 1) > 0]
        fitted = fit_components(sample_features([source.view(number, 0)[1] for number in visited], VIEW_SEED))
        save_file({"mean": fitted.mean, "basis": fitted.basis.contiguous()}, path)
    return Components(**load_file(path, device=str(device)))


class Distiller:
    """The loss of a batch."""

    def __init__(
        self, components: Components, teacher: Teacher, first: int, task: nn.Module | None = None, amp: bool = False
    ) -> None:
        """UC Merced's classes begin at output `first`.

        `task` answers normalised images with logits of these classes; without it no batch is blended. With `amp` the
        student's products are computed in bfloat16.
        """
        self.components, self.teacher, self.first, self.task = components, teacher, first, task
        self.amp = amp

    def __call__(
        self, model: nn.Module, batch: Batch, stage: Stage, plain: nn.Module | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss and its parts; the patches of a distilled student follow those of `plain`."""
        images, weights = batch.images, stage.weights
        flipped = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5  # the teacher hardly notices
        images = torch.where(flipped, images.flip(3), images)
        taught = self.task is not None and weights.task > 0
        blended = taught and bool(torch.rand(()) < stage.mixed)
        images = mixed(images) if blended else images
        x = normalised(images)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.amp):
            heads, exits, tokens = answers(model, x)
        loss, parts = images.new_zeros(()), {}
        if not blended:
            logits = self.teacher.classify(batch.features)
            targets = Targets(self.components(batch.features), logits, batch.labels, batch.foreign)
            loss, parts = heads_loss(heads, targets, weights)
            loss = loss + weights.exits * exits_loss(exits, heads, targets, weights) if exits else loss
        if taught:
            followed = task_loss(sum(heads) / len(heads), exits, self.task(x), self.first, weights)
            loss, parts = loss + weights.task * followed, parts | {"task": followed.item()}
        if plain is not None:
            with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=self.amp):
                wanted = answers(plain, x)[2]
            followed = tokens_loss(tokens, wanted)
            loss, parts = loss + weights.tokens * followed, parts | {"tokens": followed.item()}
        return loss, parts


def train(run: Run, source: ViewSource, distil: Distiller, planned: int, stop_at: float, log: Path) -> None:
    """Train until the stage has seen the views planned for it or the clock says `stop_at`; save now and then."""
    stage, counts = run.stage, run.counts
    saved = logged = time.monotonic()
    seen, sums = 0, defaultdict(list)
    run.model.train()
    while run.seen < planned and time.monotonic() < stop_at:
        before, spent = None, 0.0
        for batch in source.batches(counts["epoch"], stage.image_size, stage.batch_size, counts["batch"]):
            if before is None:  # the first batch may have asked the teacher
                before, spent = time.monotonic(), time.process_time()
            parts = train_step(run, distil, batch, run.seen / planned)
            seen += len(batch.labels)
            for key, value in parts.items():
                sums[key].append(value)
            now = time.monotonic()
            counts["trained_s"], before = counts["trained_s"] + now - before, now
            cpu = time.process_time()  # on a busy machine the better measure of what a stage takes
            counts["cpu_s"], spent = counts["cpu_s"] + cpu - spent, cpu
            if now - logged > LOG_EVERY_S:
                append_line(log, interval_record(run, seen, sums, now - logged))
                logged, seen, sums = now, 0, defaultdict(list)
            if now - saved > SAVE_EVERY_S:
                run.save()
                saved = now
            if run.seen >= planned or now >= stop_at:
                break
        else:
            counts["epoch"], counts["batch"] = counts["epoch"] + 1, 0
    run.save()


def interval_record(run: Run, seen: int, sums: dict[str, list[float]], lasted_s: float) -> dict:
    """The log line of the views `seen` since the last one: how fast, and the mean parts of the loss."""
    figures = {key: round(fmean(values), 4) for key, values in sums.items()}
    return {"stage": run.stage.name} | run.counts | {"images_per_s": round(seen / lasted_s, 1)} | figures


def train_step(run: Run, distil: Distiller, batch: Batch, progress: float) -> dict[str, float]:
    """One step of the optimiser and of the average; the parts of the loss."""
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run.stage, run.counts["step"], progress)
    loss, parts = distil(run.model, batch, run.stage, run.plain)
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss of {run.stage.name} is {float(loss)} at step {run.counts['step']}")
    run.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(run.model.parameters(), run.stage.clip_grad)
    run.optimizer.step()
    run.average.update(run.counts["step"])
    run.counts["step"] += 1
    run.counts["batch"] += 1
    return parts


def finish(run: Run, packed: Path, first: int, log: Path) -> None:
    """Write the averaged weights, their linear probe, and what the heads answer from output `first` on."""
    state = {key: value.cpu().contiguous() for key, value in run.average.model.state_dict().items()}
    unfinished = run.weights.with_suffix(".part")
    save_file(state, unfinished)
    unfinished.replace(run.weights)
    accuracy = round(probe_network(run.average.model, packed), 4)
    depths = accuracy_by_depth(run.average.model, packed, first)
    append_line(log, {"stage": run.stage.name, "probe_ucm_calibrate": accuracy, "heads": depths} | run.counts)


def task_teacher(source: str, sets: list[Packed], device: torch.device) -> nn.Module:
    """A network that answers a student's images with logits of UC Merced's classes; lite0 is one that is shipped."""
    classes = sets[TRAINING_SETS.index("ucm_train")].classes
    with ExitStack() as stack:
        if source in SHIPPED:
            shipped = resources.files("pi_dynn.assets") / SHIPPED[source]
            source = str(stack.enter_context(resources.as_file(shipped)))
        return open_teacher(source, classes, Preprocess(MEASURED_AT), device)


def parse_plan(text: str) -> dict[str, int]:
    """ "plain_64=0.5,distilled_128=0.7" to views by stage."""
    return {name: round(float(millions) * 1e6) for name, millions in (part.split("=") for part in text.split(","))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packed", type=Path, default=Path("runs/embedded/packed"), help="what pack.py wrote")
    parser.add_argument("--out", type=Path, default=Path("runs/embedded"), help="states, weights, log")
    parser.add_argument("--plan", default=PLAN, help="millions of views per stage [default: %(default)s]")
    parser.add_argument("--init", type=Path, help="weights of a plain 12-192, or embedded, for a stage after none")
    parser.add_argument("--cache", type=Path, help="what all runs share of the teacher [default: that of --out]")
    parser.add_argument("--seed", type=int, default=0, help="of order, flips and new heads, not of the fixed views")
    parser.add_argument("--task-teacher", help="that knows UC Merced: lite0, a bundle, or a checkpoint")
    parser.add_argument("--rate", type=float, default=1.0, help="times the stages' learning rates: less after --init")
    parser.add_argument("--without", choices=TRAINING_SETS, help="leave a set out, to see what it brings")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many, to be called again")
    parser.add_argument("--views", type=int, default=1, help="how many times the fixed views of VIEWS")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--amp", action="store_true", help="the student's products in bfloat16; see speed.py")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    device, out, cache = torch.device(arguments.device), arguments.out, arguments.cache or arguments.out
    stop_at, log = time.monotonic() + arguments.minutes * 60, out / "log.jsonl"
    sets = [open_packed(name, arguments.packed) for name in TRAINING_SETS]
    views = {name: count * arguments.views for name, count in VIEWS.items()}
    init = weights_to_start_from(arguments.init, out) if arguments.init else None
    task = task_teacher(arguments.task_teacher, sets, device) if arguments.task_teacher else None
    plan, distil = parse_plan(arguments.plan), None
    for stage in (stage for stage in STAGES if stage.name in plan):
        stage = replace(stage, lr=stage.lr * arguments.rate, final_lr=stage.final_lr * arguments.rate)
        repeats = stage.repeats | ({arguments.without: 0} if arguments.without else {})
        source = ViewSource(
            sets, views, repeats, cache / "features", (VIEW_SEED, arguments.seed), device, stage.smallest_crop
        )
        torch.manual_seed(arguments.seed)
        first = first_output(source.offsets)
        run = open_run(stage, source, out, device, init)
        unfinished = run.seen < plan[stage.name] or not run.weights.exists()
        if run.seen < plan[stage.name]:
            if distil is None:
                components = open_components(source, cache, device)
                distil = Distiller(components, Teacher(device), first, task, arguments.amp)
            train(run, source, distil, plan[stage.name], stop_at, log)
        if run.seen < plan[stage.name]:
            break  # out of time: the next stage starts from this one's end
        if unfinished:
            finish(run, arguments.packed, first, log)


if __name__ == "__main__":
    main()

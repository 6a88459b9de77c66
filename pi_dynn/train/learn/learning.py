"""`learn`: from a folder of photographs to a bundle, by the stages there are, within a given time."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pi_dynn.clock import Clock, PerfClock
from pi_dynn.data.look import FolderLook
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.deploy.onnx import import_onnx
from pi_dynn.errors import InputError, PiDynnError
from pi_dynn.files import write_text
from pi_dynn.models import pretrained
from pi_dynn.models.card import Card, save_weights
from pi_dynn.records import read_record
from pi_dynn.runtime.forms import LITERT, TORCHSCRIPT
from pi_dynn.runtime.litert_network import import_litert
from pi_dynn.stats import wilson_interval
from pi_dynn.text import counted
from pi_dynn.train.batches import LoadedBatches, Order, TensorBatches
from pi_dynn.train.data import held_out_tensors
from pi_dynn.train.engine import Callback, RunContext, Trainer
from pi_dynn.train.images import AugmentedImages, augmentation, hold_images
from pi_dynn.train.learn.data import open_learn_data
from pi_dynn.train.learn.fine_tune import FineTune, part_norms, start_network, stored_as
from pi_dynn.train.learn.finish import (
    ENOUGH_IMAGES,
    KNOWN_OF_A_CLASS,
    LEAST_TO_CHOOSE,
    MOST_VIEWS,
    RANGED,
    SCORE,
    Built,
    Images,
    Judged,
    all_logits,
    build,
    judge,
    some_of_each_class,
)
from pi_dynn.train.learn.plan import Cost, OutOfTime, Timekeeper, Work, epochs_in_all, finishing_s, make_plan
from pi_dynn.train.learn.probe import Probe, head_inputs
from pi_dynn.train.learn.settings import LearnSettings, candidates, predicted_latencies
from pi_dynn.train.processes import ALONE
from pi_dynn.train.recipe import Recipe
from pi_dynn.train.records import LearnPlan, LearnResult
from pi_dynn.train.run import STORED_SHARE, versions
from pi_dynn.train.run_folder import RunFolder

MEASURED_STEPS = 3
HEADS_RECIPE = Recipe(epochs=60, batch_size=32, lr=3e-3, final_lr=3e-5, weight_decay=0.05, clip_grad=0.0)
HEADS_STEPS = 1000  # at least: of few images an epoch is a step or two
WHOLE_RECIPE = Recipe(epochs=1, batch_size=32, lr=1e-3, final_lr=1e-5, weight_decay=0.02, ema_decay=0.96)
SMALLEST_CROP = 0.6  # of a picture's area, while training
TURNED_IMAGES = 128  # looked at turned, to see whether pictures have an upright...
TURNED_LOSS = 0.12  # ...which costs more accuracy than this where they do
MEMORY_BYTES = 2 * 2**30
RUN_FILES = ("result.json", *(f"whole/{name}" for name in ("run.json", "state.pt", "log.csv")))


class LearnCallback(Callback):
    """Called at every step of `learn`. Does nothing; subclasses do."""

    def on_look(self, look: FolderLook, parts: dict[str, int]) -> None:
        """The folder has been looked at, and shared out into parts of so many images."""

    def on_plan(self, plan: LearnPlan) -> None:
        """The plan is made."""

    def on_stage(self, name: str) -> None:
        """What begins now, in words."""


class Learning:
    """One run of `learn`: `run()` does it all."""

    def __init__(self, settings: LearnSettings, callback: LearnCallback, clock: Clock | None = None) -> None:
        self.settings, self.callback, self.clock = settings, callback, clock or PerfClock()
        self.started_ns = self.clock.now_ns()
        self.unfinished: str | None = None
        self.any_way_up = bool(settings.any_way_up)
        self.recipe = HEADS_RECIPE

    def run(self) -> LearnResult:
        """Look, split, plan, learn, build and judge; the files are written.

        Raises: PiDynnError; KeyboardInterrupt when interrupted before anything is learned.
        """
        settings = self.settings
        self.network, self.sizes = candidates(settings)
        self.weights = pretrained.known_pretrained(self.network)
        self._check_place()
        pretrained.pretrained_file(self.network)  # a missing package is said before any work is done
        with clear_write_errors(settings.work):
            self.callback.on_stage(f"looking at {settings.folder}")
            try:
                self.data = open_learn_data(settings)
            except PiDynnError:
                with suppress(OSError):  # of something from before
                    settings.work.rmdir()
                raise
            self.callback.on_look(self.data.look, self.data.counts)
            self.plan = self._plan()
            self.callback.on_plan(self.plan)
            return self._learn()

    def _check_place(self) -> None:
        """Raise InputError now if nothing can be written where the bundle is to go."""
        settings = self.settings
        if settings.out.is_dir() or (settings.form == TORCHSCRIPT and settings.out.suffix != ".pt"):
            names = "mine.pt, mine.onnx.zip or mine.tflite.zip"
            raise InputError(f"-o {settings.out}: give the name of the bundle to write, {names}")
        if settings.form != TORCHSCRIPT:
            import_onnx()
        if settings.form == LITERT:
            import_litert()
        try:
            settings.work.mkdir(parents=True, exist_ok=True)
            mark = settings.work / ".write"
            mark.write_bytes(b"")
            mark.unlink()
        except OSError as error:
            raise InputError(
                f"{settings.work}: cannot be written to ({error.strerror}): give another place with -o FILE.pt"
            ) from error

    def _prepare(self, size: int) -> None:
        """The network, its batches and the held-out images at an image size."""
        torch.manual_seed(self.settings.seed)
        train = self.data.train
        self.preprocess = Preprocess(size=size, mean=self.weights.preprocess.mean, std=self.weights.preprocess.std)
        self.model, self.start = start_network(self.network, len(train.classes), size)
        held = hold_images(train, Preprocess(size=round(size * STORED_SHARE)), MEMORY_BYTES)
        augment = augmentation("crop", size, SMALLEST_CROP)
        self.images = AugmentedImages(held, torch.tensor(train.labels), augment, self.preprocess)
        self.batches = LoadedBatches(self.images, self._order(WHOLE_RECIPE), workers=0)
        self.held_out = held_out_tensors(self.data.calibrate, self.preprocess)

    def _order(self, recipe: Recipe) -> Order:
        return Order(len(self.data.train), recipe.batch_size, self.settings.seed)

    def _plan(self) -> LearnPlan:
        """The plan of the run that is resumed, or one made by a few real steps."""
        settings, file = self.settings, self.settings.work / "plan.json"
        if settings.resume and file.exists():
            plan = read_record(LearnPlan, file, InputError, "start anew without --resume")
            if plan.model != self.network or plan.image_size not in self.sizes:
                raise InputError(f"{file}: the run was of {plan.model} at {plan.image_size} px: resume it as it was")
            self._prepare(plan.image_size)
            return plan
        self.callback.on_stage("measuring a few steps on this machine")
        costs: dict[int, Cost] = {}
        for size in self.sizes:
            self._prepare(size)
            costs[size] = self._cost()
            left_s = 60 * settings.minutes - self.took_s()
            plan = make_plan(self.network, WHOLE_RECIPE.batch_size, costs, self._work(), left_s, settings.how)
            if not plan.short:
                break
        for name in RUN_FILES:  # of an earlier run, so that this one starts anew
            (settings.work / name).unlink(missing_ok=True)
        write_text(file, json.dumps(plan.to_dict(), indent=1) + "\n")
        if plan.image_size != self.model.image_size:
            self._prepare(plan.image_size)
        return plan

    def _work(self) -> Work:
        count = self.data.counts
        held_out, ranged = count["calibrate"] + count["test"], min(RANGED, count["train"])
        known = len(some_of_each_class(self.data.train, KNOWN_OF_A_CLASS)) if self.settings.reject else 0
        views = 1 if count["calibrate"] >= ENOUGH_IMAGES else MOST_VIEWS
        viewed = known + views * count["calibrate"]
        return Work(self.batches.steps, count["train"], held_out, len(self.data.classes), ranged, viewed)

    def _cost(self) -> Cost:
        """Seconds of a step and of an image; the network is left as it was."""
        before = {key: value.clone() for key, value in self.model.state_dict().items()}
        trainer = Trainer(FineTune(self.model, self.held_out), self.batches, WHOLE_RECIPE, RunContext(clock=self.clock))
        trainer.train_epoch(0, 1)  # the first step is slow: memory is found
        step_s = self._timed(lambda: trainer.train_epoch(0, MEASURED_STEPS)) / min(MEASURED_STEPS, self.batches.steps)
        images = self.held_out[0][:32]
        image_s = self._timed(lambda: head_inputs(self.model, images)) / len(images)
        self.model.load_state_dict(before)
        return Cost(step_s, image_s)

    def _timed(self, work: Callable[[], object]) -> float:
        started_ns = self.clock.now_ns()
        work()
        return (self.clock.now_ns() - started_ns) / 1e9

    def took_s(self) -> float:
        """Seconds since the run began."""
        return (self.clock.now_ns() - self.started_ns) / 1e9

    # Learning

    def _learn(self) -> LearnResult:
        self.callback.on_stage("training the heads on what the network sees already")
        by_heads = self._learn_heads()
        epochs, kept, accuracies = 0, "heads", {"heads": by_heads[-1]}
        if self.plan.how == "whole":
            heads = {key: value.clone() for key, value in self.model.state_dict().items()}
            trainer = self._learn_whole()
            epochs = len(trainer.history)
            if epochs:
                row = trainer.history[trainer.best_epoch - 1]
                by_whole = [float(row[f"acc_{block}"]) for block in (*self.model.exit_blocks, self.model.depth - 1)]
                accuracies["whole"] = by_whole[-1]
                kept = "whole" if sum(by_whole) >= sum(by_heads) else "heads"  # of all answers: one says too little
            if kept == "whole":
                self.recipe = replace(trainer.recipe, epochs=epochs)
            self.model.load_state_dict(trainer.best if kept == "whole" else heads)
        return self._finish(epochs, kept, accuracies)

    def _learn_heads(self) -> list[float]:
        """Train all heads on features; the accuracy of each on the calibration part, the last answer's last."""
        train = self.data.train
        x, labels = held_out_tensors(train, self.preprocess)
        features = head_inputs(self.model, x)
        held_out = head_inputs(self.model, self.held_out[0])
        stage = Probe(self.model, (held_out, self.held_out[1]))
        batches = TensorBatches((labels, *features), self._order(HEADS_RECIPE))
        self.recipe = replace(HEADS_RECIPE, epochs=max(HEADS_RECIPE.epochs, HEADS_STEPS // batches.steps))
        fitted = Trainer(stage, batches, self.recipe, RunContext(clock=self.clock, name="heads")).run()
        if len(self.held_out[1]) >= LEAST_TO_CHOOSE:  # of ten images held out, one epoch is the best by luck
            stage.model.load_state_dict(fitted.best)
        answers = stage.model.eval()(held_out)
        return [float((logits.argmax(1) == self.held_out[1]).float().mean()) for logits in answers]

    def _any_way_up(self) -> bool:
        """Whether the network with its new heads knows pictures of the calibrate part as well when they are turned.

        Then they have no upright, as scenes seen from above, and turned they are more to learn from.
        """
        x, labels = (tensor[:: max(1, len(tensor) // TURNED_IMAGES)] for tensor in self.held_out)
        right = [
            float((all_logits(self.model, torch.rot90(x, k, (2, 3)))[-1].argmax(-1) == labels.numpy()).mean())
            for k in (0, 1, 2)
        ]
        return min(right[1:]) >= right[0] - TURNED_LOSS

    def _learn_whole(self) -> Trainer:
        """Fine-tune until the plan is done, the time is up, or somebody interrupts; the trainer with its history."""
        plan, settings = self.plan, self.settings
        recipe = replace(WHOLE_RECIPE, epochs=plan.epochs, seed=settings.seed, warmup_steps=self.batches.steps // 2)
        self.any_way_up = self._any_way_up() if settings.any_way_up is None else settings.any_way_up
        self.images.augment = augmentation("crop", self.model.image_size, SMALLEST_CROP, self.any_way_up)
        stage = FineTune(self.model, self.held_out)
        folder = RunFolder(settings.work / "whole", self._card())
        folder.begin(self._manifest(recipe), settings.resume)
        cost = Cost(plan.step_s, plan.image_s)
        end_ns = self.started_ns + int(1e9 * (60 * settings.minutes - finishing_s(cost, self._work())))
        keeper = Timekeeper(self.clock, end_ns, self.callback)
        recipe = replace(recipe, epochs=self._epochs_in_all((end_ns - self.clock.now_ns()) / 1e9))
        trainer = Trainer(stage, self.batches, recipe, RunContext(ALONE, folder, keeper, self.clock, "whole"))
        keeper.keep(trainer)
        self.callback.on_stage(
            f"training the whole network, {counted(recipe.epochs, 'epoch')} "
            "(mean accuracy: over its exits and full depth)"
        )
        try:
            trainer.run()
        except OutOfTime:
            self.unfinished = f"the time was up after {len(trainer.history)} of {trainer.recipe.epochs} epochs"
        except KeyboardInterrupt:
            self.unfinished = f"interrupted after {len(trainer.history)} of {trainer.recipe.epochs} epochs"
        return trainer

    def _epochs_in_all(self, left_s: float) -> int:
        """Those of the plan; of a run that goes on those it has done, and as many more as fit the time that is left."""
        log, result = self.settings.work / "whole" / "log.csv", self.settings.work / "result.json"
        if not log.exists():
            return self.plan.epochs
        done = len(log.read_text(encoding="utf-8").splitlines()) - 1
        if result.exists() and read_record(LearnResult, result, InputError, "delete it").unfinished is None:
            return done
        return epochs_in_all(done, left_s, self.plan.step_s * self.batches.steps)

    def _manifest(self, recipe: Recipe) -> dict[str, Any]:
        return {
            "stage": "learn",
            "model": self.model.name,
            "arguments": self.model.arguments,
            "init": self.start,
            "recipe": recipe.to_dict(),
            "options": {"any_way_up": self.any_way_up, "preprocess": self.preprocess.to_dict()},
            "data": self.data.record,
            "versions": versions(),
        }

    def _source(self) -> str:
        """Where the weights it starts from come from, in words."""
        return f"{self.weights.trained_on} weights, {self.weights.licence}, from {self.weights.source}"

    def _card(self) -> Card:
        classes = self.data.classes
        return Card(self.model.name, self.model.arguments, classes, self.preprocess, [self._manifest(self.recipe)])

    # What is left behind

    def _finish(self, epochs: int, kept: str, accuracies: dict[str, float]) -> LearnResult:
        settings = self.settings
        part_norms(self.model)
        model = stored_as(self.model.eval().requires_grad_(False), torch.contiguous_format)
        save_weights(settings.work / "weights.safetensors", model.state_dict(), self._card())
        self.callback.on_stage("choosing exits, making int8, and checking it against fp32")
        train = self.data.train
        count = min(RANGED, len(train))
        ranged, _ = held_out_tensors(train.subset([i * len(train) // count for i in range(count)]), self.preprocess)
        images = Images(ranged, some_of_each_class(train, KNOWN_OF_A_CLASS), self.data.calibrate, self.held_out)
        notes = {
            "stages": [self._manifest(self.recipe)],
            "source": self._source(),
            "licence": f"{self.weights.licence} (the weights it starts from)",
        }
        built = build(
            model,
            self.preprocess,
            images,
            notes,
            any_way_up=self.any_way_up,
            reject=settings.reject,
            form=settings.form,
        )
        built.bundle.save(settings.out)
        self.callback.on_stage("judging the bundle on the test part")
        return self._result(epochs, kept, accuracies, built, judge(built, self.data.test))

    def _result(
        self, epochs: int, kept: str, accuracies: dict[str, float], built: Built, judged: Judged
    ) -> LearnResult:
        settings, manifest, work = self.settings, built.bundle.manifest, self.settings.work
        right, images = sum(row.right for row in judged.per_class), sum(row.images for row in judged.per_class)
        return LearnResult(
            bundle=str(settings.out),
            weights=str(work / "weights.safetensors"),
            page=str(work / "page.html"),
            card=str(work / "card.md"),
            split=str(self.data.split),
            folder=str(settings.folder),
            plan=self.plan,
            source=self._source(),
            seed=settings.seed,
            classes=manifest.labels,
            parts=self.data.counts,
            left_out=len(self.data.look.left_out),
            epochs=epochs,
            kept=kept,
            any_way_up=self.any_way_up,
            chosen_accuracy=accuracies,
            precision=manifest.precision,
            precision_reason=built.reason,
            int8_agreement=built.agreement,
            exit_blocks=manifest.exit_blocks,
            thresholds=manifest.thresholds,
            score=SCORE,
            evaluation=judged.evaluation,
            interval=wilson_interval(right, images),
            exits_cost=judged.exits_cost,
            per_class=judged.per_class,
            confusion=judged.confusion,
            answers=judged.answers,
            curve=judged.curve,
            advice=self.data.look.advice,
            took_s=self.took_s(),
            unfinished=self.unfinished,
            predicted=predicted_latencies(self.network, self.preprocess.size, settings.form, judged.evaluation),
        )


@contextmanager
def clear_write_errors(place: Path) -> Iterator[None]:
    """Turn what a full or failing disk raises into one clear line. Raises: InputError."""
    try:
        yield
    except PiDynnError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"{error.filename or place}: {reason}; what was written before stays. Cure that and run the same line again"
        ) from error

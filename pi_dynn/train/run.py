"""Training on images: transfer, distillation, and exits that learn together with their network."""

import platform
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pi_dynn import __version__
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.data.torchvision_ops import torchvision
from pi_dynn.deploy.unpacked import weights_to_start_from
from pi_dynn.errors import InputError
from pi_dynn.files import file_sha256
from pi_dynn.models.card import Card, read_card
from pi_dynn.models.registry import create_model
from pi_dynn.train.batches import LoadedBatches, Order
from pi_dynn.train.data import DataSettings, TrainData, held_out_tensors, open_train_data
from pi_dynn.train.distill import Distillation
from pi_dynn.train.engine import Callback, Fitted, RunContext, Stage, Trainer, accuracy
from pi_dynn.train.images import AugmentedImages, Mixing, augmentation, hold_images
from pi_dynn.train.networks import Start, faster_on, open_teacher, teacher_file
from pi_dynn.train.processes import Processes
from pi_dynn.train.recipe import Recipe
from pi_dynn.train.records import TrainPlan, TrainResult
from pi_dynn.train.run_folder import RunFolder
from pi_dynn.train.transfer import Transfer, exit_accuracies

STORED_SHARE = 1.25  # images are kept larger than the network sees them, so that crops lose no detail
TIMED_STEPS = 4


@dataclass(frozen=True)
class ImageSettings:
    """Loading and augmentation of images for training."""

    crop: float = 1.0
    augment: str = "randaugment"
    smallest_crop: float = 0.35
    any_way_up: bool = False
    mix: float = 0.8  # share of batches with mixup or cutmix
    label_smoothing: float = 0.1
    workers: int = 1
    memory_bytes: int = 2 * 2**30


@dataclass(frozen=True)
class TeachingSettings:
    """The teacher, and the loss of distillation."""

    teacher: str
    kind: str = "hard"
    alpha: float = 0.5
    temperature: float = 1.0


@dataclass(frozen=True)
class TrainSettings:
    """One transfer or distillation. `warmup_epochs` go into the recipe once the steps of an epoch are known.

    A `model` of None is that of the checkpoint `init`; with `pretrained` it starts from weights known by its name.
    An `exit_weight` above 0 trains `exits` along.
    """

    data: DataSettings
    out: Path
    recipe: Recipe
    images: ImageSettings = field(default_factory=ImageSettings)
    model: str | None = None
    init: Path | None = None
    pretrained: bool = False
    image_size: int | None = None
    warmup_epochs: float = 0.0
    drop_path: float | None = None
    exits: list[int] | str | None = None
    exit_weight: float = 0.0
    teaching: TeachingSettings | None = None
    resume: bool = False


class ImageTraining:
    """A transfer or distillation that is ready to run: data opened, network built, nothing trained yet."""

    def __init__(self, settings: TrainSettings, processes: Processes) -> None:
        """Raises: PiDynnError for data, a checkpoint or options that do not fit together."""
        if settings.init is not None:
            settings = replace(settings, init=weights_to_start_from(settings.init, settings.out))
        self.settings, self.processes = settings, processes
        self.data = open_train_data(settings.data, settings.out, processes)
        torch.manual_seed(settings.recipe.seed)
        self.model, self.start, shown = _network(settings, self.data)
        self.image_size = self.model.arguments["image_size"]
        self.preprocess = replace(shown, size=self.image_size, crop=settings.images.crop)
        self.batches = self._batches()
        self.recipe = replace(settings.recipe, warmup_steps=round(settings.warmup_epochs * self.batches.steps))
        faster_on(self.model, processes.device)
        self.stage = self._stage()
        self.total_steps = self.batches.steps * self.recipe.epochs

    @property
    def kind(self) -> str:
        """The name of the stage."""
        if self.settings.teaching is not None:
            return "distill"
        return "joint" if self.settings.exit_weight else "transfer"

    def _batches(self) -> LoadedBatches:
        images, part = self.settings.images, self.data.train
        stored = Preprocess(size=round(self.image_size * STORED_SHARE))
        augment = augmentation(images.augment, self.image_size, images.smallest_crop, images.any_way_up)
        held = hold_images(part, stored, images.memory_bytes)
        dataset = AugmentedImages(held, torch.tensor(part.labels), augment, self.preprocess)
        order = Order(len(part), self.settings.recipe.batch_size, self.settings.recipe.seed, self.processes)
        return LoadedBatches(dataset, order, images.workers, pin=self.processes.device.type == "cuda")

    def _stage(self) -> Stage:
        settings, images, teaching = self.settings, self.settings.images, self.settings.teaching
        held_out = held_out_tensors(self.data.calibrate, self.preprocess)
        mix = Mixing(len(self.data.classes), images.mix)
        if teaching is None:
            smoothing, weight = images.label_smoothing, settings.exit_weight
            return Transfer(self.model, held_out, mix=mix, label_smoothing=smoothing, exit_weight=weight)
        teacher = open_teacher(teaching.teacher, self.data.classes, self.preprocess, self.processes.device)
        return Distillation(
            self.model,
            teacher,
            held_out,
            kind=teaching.kind,
            alpha=teaching.alpha,
            temperature=teaching.temperature,
            mix=mix,
            label_smoothing=images.label_smoothing,
        )

    def manifest(self) -> dict:
        """The manifest: network, images, hyperparameters and versions."""
        teaching = self.settings.teaching
        options: dict[str, Any] = asdict(self.settings.images) | {"exit_weight": self.settings.exit_weight}
        del options["workers"], options["memory_bytes"]  # they change nothing
        if teaching is not None:
            _, file = teacher_file(teaching.teacher)
            options |= asdict(teaching) | {"teacher": file.name, "teacher_sha256": file_sha256(file)}
        return {
            "stage": self.kind,
            "model": self.model.name,
            "arguments": self.model.arguments,
            "init": self.start,
            "recipe": self.recipe.to_dict(),
            "options": options,
            "data": self.data.record,
            "processes": self.processes.world,
            "device": self.processes.device.type,
            "versions": versions(),
        }

    def card(self, manifest: dict) -> Card:
        """The card of the weights file, with the stages before this one."""
        before = None if self.settings.init is None else read_card(self.settings.init)
        stages = [*(before.stages if before else []), manifest]
        return Card(self.model.name, self.model.arguments, self.data.classes, self.preprocess, stages)

    def plan(self) -> TrainPlan:
        """The plan, with times from a few real steps, whose training is discarded."""
        trainer = self._trainer(RunContext(self.processes, name=self.kind))
        return measured_plan(trainer, self.data, {self.kind: self.recipe})

    def _trainer(self, context: RunContext) -> Trainer:
        return Trainer(self.stage, self.batches, self.recipe, context)

    def train(self, callback: Callback) -> Fitted:
        """Train to the end, also resuming an interrupted run; the network is left with its best weights."""
        manifest = self.manifest()
        folder = RunFolder(self.settings.out, self.card(manifest))
        if self.processes.first:
            folder.begin(manifest, self.settings.resume)
        self.processes.wait()
        fitted = self._trainer(RunContext(self.processes, folder, callback, name=self.kind)).run()
        self.model.load_state_dict(fitted.best)
        return fitted

    def run(self, callback: Callback) -> TrainResult:
        """Train, then evaluate the best weights on the test part."""
        fitted = self.train(callback)
        test, depths = None, {}
        if self.data.test is not None and self.processes.first:
            x, labels = held_out_tensors(self.data.test, self.preprocess)
            test = accuracy(self.model, x, labels, self.processes.device)
            if self.settings.exit_weight:
                blocks = [*self.model.exit_blocks, self.model.depth - 1]
                right = exit_accuracies(self.model, x, labels)
                depths = {str(block): value for block, value in zip(blocks, right, strict=True)}
        return TrainResult(
            stage=self.kind,
            epochs=len(fitted.history),
            best_epoch=fitted.best_epoch,
            accuracy=fitted.best_score,
            test_accuracy=test,
            weights=str(self.settings.out / "best.safetensors"),
            depth_accuracies=depths,
        )


def _network(settings: TrainSettings, data: TrainData) -> tuple[nn.Module, dict | None, Preprocess]:
    """The network to train with the weights it starts from, what was taken from where, and how its images looked."""
    start = Start(settings.init, settings.pretrained)
    card = start.card(settings.model, settings.image_size)
    name = settings.model or (card and card.model)
    if name is None:
        raise InputError("no network is named: give --model, or --init with a checkpoint that tells its own")
    size = settings.image_size or (card and card.arguments["image_size"])
    if size is None:
        raise InputError(f"{name}: no image size is given: give --image-size, 224 is the published one")
    goes_on = card is not None and card.model == name and card.arguments.get("distilled", False)
    arguments: dict[str, Any] = {"distilled": True} if goes_on or settings.teaching is not None else {}
    if settings.exit_weight:
        arguments["exits"] = settings.exits
    if settings.drop_path is not None:
        arguments["drop_path"] = settings.drop_path
    model = create_model(name, num_classes=len(data.classes), image_size=size, **arguments)
    return model, start.load(model), card.preprocess if card else Preprocess(size=size)


def versions() -> dict[str, str]:
    """The versions that a run depends on."""
    return {
        "pi_dynn": __version__,
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "python": platform.python_version(),
    }


def measured_plan(trainer: Trainer, data: TrainData, recipes: dict[str, Recipe], other_s: float = 0.0) -> TrainPlan:
    """The plan of a job, timed on a few real steps; `other_s` is known to be needed besides."""
    context, model, steps = trainer.context, trainer.stage.model, trainer.batches.steps
    trainer.train_epoch(0, 1)  # the first step is slow: workers start, memory is allocated
    started_ns = context.clock.now_ns()
    row = trainer.train_epoch(0, TIMED_STEPS)
    step_s = (context.clock.now_ns() - started_ns) / 1e9 / min(TIMED_STEPS, steps)
    started_ns = context.clock.now_ns()
    trainer.stage.evaluate(trainer.answering)
    evaluation_s = (context.clock.now_ns() - started_ns) / 1e9
    epochs = sum(recipe.epochs for recipe in recipes.values())
    return TrainPlan(
        stage=context.name,
        model=model.name,
        parameters=sum(p.numel() for p in model.parameters()),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        classes=len(data.classes),
        image_size=model.arguments["image_size"],
        parts=data.counts,
        steps_per_epoch=steps,
        recipes={name: recipe.to_dict() for name, recipe in recipes.items()},
        processes=context.processes.world,
        device=str(context.processes.device),
        step_s=step_s,
        waited_share=row["waited"],
        estimated_s=epochs * (steps * step_s + evaluation_s) + other_s,
    )

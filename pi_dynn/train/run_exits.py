"""Exits for a trained network: heads and gates on cached features, the choice of exits, and the bundle."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pi_dynn.calibrate.choose_exits import ExitChoice, choose_exits
from pi_dynn.clock import Clock, PerfClock
from pi_dynn.data.folders import ImageFolder
from pi_dynn.deploy.builder import build_bundle, rehearse, usual_precision
from pi_dynn.deploy.export import calibration_images
from pi_dynn.deploy.unpacked import weights_to_start_from
from pi_dynn.errors import InputError
from pi_dynn.evaluate.outputs import collect_outputs, evaluate
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.files import write_text
from pi_dynn.models.card import Card, save_weights
from pi_dynn.models.checkpoint_card import card_of
from pi_dynn.models.macs import count_macs
from pi_dynn.models.pretrained import load_trunk
from pi_dynn.models.registry import create_model
from pi_dynn.records import NEVER
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.manifest import INT8_STATIC
from pi_dynn.runtime.session import Session
from pi_dynn.train.batches import Order, TensorBatches
from pi_dynn.train.data import DataSettings, open_train_data
from pi_dynn.train.engine import Callback, RunContext, Trainer
from pi_dynn.train.exits import Bilevel, ExitStage, HeadWarmup
from pi_dynn.train.features import ExitFeatures, backbone_sha256, cached_features, collect_features, exit_heads
from pi_dynn.train.images import decode_all, turned_and_flipped
from pi_dynn.train.networks import faster_on
from pi_dynn.train.processes import Processes
from pi_dynn.train.recipe import Recipe
from pi_dynn.train.records import TrainPlan, TrainResult
from pi_dynn.train.run import ImageTraining, TrainSettings, measured_plan, versions
from pi_dynn.train.run_folder import RunFolder

FEATURE_BATCH = 64
REHEARSAL_IMAGES = 16


@dataclass(frozen=True)
class ExitsSettings:
    """One exits stage. `joint` trains the network and its exits first; without it `init` is the frozen backbone."""

    data: DataSettings
    out: Path
    recipe: Recipe  # of the bilevel half
    warmup: Recipe
    init: Path | None = None
    model: str | None = None  # of `init`, if the file does not contain it; so is the size
    image_size: int | None = None
    joint: TrainSettings | None = None
    exits: list[int] | str = "all"
    exit_heads: str = "cls"
    head_patience: int = 2
    trade_off: float = 0.7
    turn: int = 200
    all_views: bool = False
    crop: float | None = None
    most_exits: int = 4
    tolerated_loss: float = 0.0
    keep: list[int] | None = None  # these exits instead of the best...
    thresholds: list[float] | None = None  # ...at these thresholds, one for all or one for each
    precision: str | None = None  # that of its family
    resume: bool = False


class ExitTraining:
    """An exits stage that is ready to run."""

    kind = "exits"

    def __init__(self, settings: ExitsSettings, processes: Processes, clock: Clock | None = None) -> None:
        """Raises: PiDynnError for data, a checkpoint or options that do not fit together."""
        self.settings, self.processes, self.clock = settings, processes, clock or PerfClock()
        self.joint = None if settings.joint is None else ImageTraining(settings.joint, processes)
        if self.joint is not None:
            self.data, self.model, self.start = self.joint.data, self.joint.model, None
            self.preprocess, self.stages_before = self.joint.preprocess, []
        elif settings.init is not None:
            self._from_checkpoint(weights_to_start_from(settings.init, settings.out))
        else:
            raise InputError("exits need a trained network: give --init CKPT, or --joint to train one along")
        self._kept = self._exits_to_keep()
        exit_heads(self.model)  # a network without the heads this stage can train is refused before anything is trained
        self.precision = settings.precision or usual_precision(self.model)
        with_weights = settings.joint is None or settings.joint.pretrained or settings.joint.init is not None
        few = calibration_images(self.preprocess, self.data.train, REHEARSAL_IMAGES)
        rehearse(self.model, self.precision, few, trained=with_weights)
        order = Order(self._samples(self.data.train), settings.recipe.batch_size, settings.recipe.seed, processes)
        self.order = order
        self.total_steps = order.steps * (settings.recipe.epochs + (0 if self.joint else settings.warmup.epochs))
        self.total_steps += self.joint.total_steps if self.joint else 0

    def _exits_to_keep(self) -> list[int] | None:
        """The exits to keep as numbers among those trained. Raises: InputError."""
        keep, limits, trained = self.settings.keep, self.settings.thresholds, list(self.model.exit_blocks)
        if keep is None:
            if limits is not None:
                raise InputError("thresholds are for exits that are named: give --keep-exits with them")
            return None
        if not set(keep) <= set(trained) or keep != sorted(keep):
            raise InputError(f"--keep-exits {','.join(map(str, keep))}: give some, in order, of the trained {trained}")
        if limits is not None and len(limits) not in (1, len(keep)):
            raise InputError(f"{len(limits)} thresholds for {len(keep)} exits: give one, or one for each")
        return [trained.index(block) for block in keep]

    def _from_checkpoint(self, init: Path) -> None:
        settings = self.settings
        self.data = open_train_data(settings.data, settings.out, self.processes)
        card = card_of(init, model=settings.model, image_size=settings.image_size)
        arguments = card.arguments | {"exits": settings.exits}
        if settings.exit_heads != "cls":
            arguments["exit_heads"] = settings.exit_heads
        if card.arguments["num_classes"] != len(self.data.classes):
            raise InputError(
                f"{init}: knows {card.arguments['num_classes']} classes and the images have "
                f"{len(self.data.classes)}: train it on them with `pi-dynn train transfer` first"
            )
        torch.manual_seed(settings.recipe.seed)
        self.model = create_model(card.model, **arguments)
        self.start = load_trunk(self.model, init)
        own = card.preprocess
        self.preprocess = own if settings.crop is None else replace(own, crop=settings.crop)
        self.stages_before = card.stages
        faster_on(self.model, self.processes.device)

    def _samples(self, part: ImageFolder) -> int:
        return len(part) * (8 if self.settings.all_views else 1)

    def manifest(self) -> dict:
        """The manifest: network, images, hyperparameters and versions."""
        settings = self.settings
        options: dict[str, Any] = {
            name: getattr(settings, name)
            for name in ("head_patience", "trade_off", "turn", "all_views", "most_exits", "tolerated_loss")
        } | {"precision": self.precision}
        options |= {name: value for name in ("keep", "thresholds") if (value := getattr(settings, name)) is not None}
        return {
            "stage": self.kind,
            "model": self.model.name,
            "arguments": self.model.arguments,
            "init": self.start,
            "recipe": {"warmup": settings.warmup.to_dict(), "bilevel": settings.recipe.to_dict()},
            "options": options | {"joint": self.joint is not None, "preprocess": self.preprocess.to_dict()},
            "data": self.data.record,
            "processes": self.processes.world,
            "device": self.processes.device.type,
            "versions": versions(),
        }

    def features(self, part: ImageFolder, name: str) -> ExitFeatures:
        """The features of a part, from the file in the run's folder or computed and cached there."""
        key = {
            "backbone": backbone_sha256(self.model),
            "data": self.data.record,
            "preprocess": self.preprocess.to_dict(),
            "all_views": self.settings.all_views,
        }
        path = self.settings.out / f"features_{name}.safetensors"

        def compute() -> ExitFeatures:
            self.model.to(self.processes.device)
            return collect_features(self.model, self._batches_of(part))

        if self.processes.first:
            cached_features(path, key, compute)
        self.processes.wait()
        return cached_features(path, key, compute)

    def _batches_of(self, part: ImageFolder) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(part), FEATURE_BATCH):
            chosen = part.subset(list(range(start, min(start + FEATURE_BATCH, len(part)))))
            pixels, labels = decode_all(chosen, self.preprocess), torch.tensor(chosen.labels)
            views = turned_and_flipped(pixels).chunk(8) if self.settings.all_views else (pixels,)
            for view in views:
                yield self.preprocess.tensor(view.permute(0, 2, 3, 1).numpy()), labels

    def plan(self) -> TrainPlan:
        """The plan, with times from a few real steps."""
        if self.joint is not None:
            plan = self.joint.plan()
            return replace(plan, stage=self.kind, recipes=plan.recipes | {"gates": self.settings.recipe.to_dict()})
        few = self.data.train.subset(list(range(0, len(self.data.train), max(1, len(self.data.train) // 32)))[:32])
        started_ns = self.clock.now_ns()
        features = collect_features(self.model.to(self.processes.device), self._batches_of(few))
        image_s = (self.clock.now_ns() - started_ns) / 1e9 / len(few)
        stage = HeadWarmup(self.model, features, self.settings.head_patience)
        order = replace(self.order, size=len(features.labels))
        trainer = Trainer(
            stage,
            TensorBatches(features.flat(), order),
            self.settings.warmup,
            RunContext(self.processes, clock=self.clock, name=self.kind),
        )
        recipes = {"warmup": self.settings.warmup, "bilevel": self.settings.recipe}
        plan = measured_plan(trainer, self.data, recipes)
        images = sum(self.data.counts.values())
        return replace(
            plan,
            steps_per_epoch=self.order.steps,
            estimated_s=images * image_s + self.total_steps * (plan.step_s or 0.0),
        )

    def run(self, callback: Callback) -> TrainResult:
        """Train heads and gates, choose the exits to keep, write the bundle, evaluate it on the test part."""
        settings, manifest = self.settings, self.manifest()
        epochs = 0
        if self.joint is not None:
            epochs = len(self.joint.train(callback).history)
        card = Card(
            self.model.name,
            self.model.arguments,
            self.data.classes,
            self.preprocess,
            [*self.stages_before, *([self.joint.manifest()] if self.joint else []), manifest],
        )
        held_out, train = (
            self.features(part, name) for part, name in ((self.data.calibrate, "calibrate"), (self.data.train, "train"))
        )
        batches = TensorBatches(train.flat(), self.order)
        if self.joint is None:
            warmup = HeadWarmup(self.model, held_out, settings.head_patience)
            epochs += self._fit(warmup, batches, settings.warmup, "warmup", card, callback)[0]
            warmup.restore_best()
        table = count_macs(self.model.cpu(), self.model.arguments["image_size"])
        bilevel = Bilevel(
            self.model,
            held_out,
            [answer.macs / table.total for answer in table.exits],
            trade_off=settings.trade_off,
            turn=settings.turn,
            gates_only=self.joint is not None,
        )
        more, best_epoch, best = self._fit(bilevel, batches, settings.recipe, "bilevel", card, callback)
        self.model.load_state_dict(best)
        self.model.cpu()
        weights = settings.out / "exits.safetensors"
        result = TrainResult(self.kind, epochs + more, best_epoch, 0.0, None, str(weights))
        if not self.processes.first:
            return result
        save_weights(weights, self.model.state_dict(), card)
        return self._choose_and_judge(result, bilevel, card)

    def _fit(
        self, stage: ExitStage, batches: TensorBatches, recipe: Recipe, name: str, card: Card, callback: Callback
    ) -> tuple[int, int, dict[str, Tensor]]:
        folder = RunFolder(self.settings.out / name, card)
        if self.processes.first:
            # The second half finds no folder where the first was interrupted: that is no other run.
            folder.begin(card.stages[-1], self.settings.resume)
        self.processes.wait()
        fitted = Trainer(stage, batches, recipe, RunContext(self.processes, folder, callback, self.clock, name)).run()
        return len(fitted.history), fitted.best_epoch, fitted.best

    def _choose_and_judge(self, result: TrainResult, bilevel: Bilevel, card: Card) -> TrainResult:
        settings, model, static = self.settings, self.model.eval(), self.precision == INT8_STATIC
        choice = self._choose(bilevel)
        blocks = [model.exit_blocks[k] for k in choice.exits]
        notes = {
            "stages": card.stages,
            "thresholds_chosen": (
                f"on the calibrate part of {len(self.data.calibrate)} images, to lose at most "
                f"{settings.tolerated_loss:.1%}"
                if settings.thresholds is None
                else "given by hand"
            )
            + f": accuracy {choice.accuracy:.4f} at {choice.mean_macs / 1e6:.1f} M multiply-adds",
        }
        bundle = build_bundle(
            model,
            exits=blocks,
            thresholds=choice.thresholds,
            precision=self.precision,
            calibration=calibration_images(self.preprocess, self.data.train) if static else None,
            labels=self.data.classes,
            preprocess=self.preprocess,
            notes=notes,
        )
        path = settings.out / "bundle.pt"
        bundle.save(path)
        common = choice.thresholds[0] if len(set(choice.thresholds)) == 1 else NEVER if not blocks else None
        result = replace(result, bundle=str(path), exit_blocks=blocks, threshold=common)
        result = replace(result, accuracy=choice.accuracy, depth_accuracies=self._depths(bilevel))
        if self.data.test is not None:
            judged = self._judge(bundle, self.data.test)
            result = replace(result, evaluation=judged, test_accuracy=judged.acc1)
        write_text(settings.out / "result.json", json.dumps(result.to_dict(), indent=1) + "\n")
        return result

    def _choose(self, bilevel: Bilevel) -> ExitChoice:
        logits, labels = bilevel.held_out_logits(self.model)
        values = bilevel.gate_values(self.model, logits[:-1])
        table = count_macs(self.model, self.model.arguments["image_size"])
        return choose_exits(
            torch.cat((values, torch.ones_like(values[:1]))).numpy(),
            np.stack([(z.argmax(1) == labels).numpy() for z in logits]),
            [answer.macs for answer in table.exits],
            [answer.check_macs for answer in table.exits],
            most=self.settings.most_exits,
            tolerated_loss=self.settings.tolerated_loss,
            kept=self._kept,
            thresholds=self.settings.thresholds,
        )

    def _depths(self, bilevel: Bilevel) -> dict[str, float]:
        figures = bilevel.accuracies(*bilevel.held_out_logits(self.model))
        return {name.removeprefix("acc_"): value for name, value in figures.items()}

    @staticmethod
    def _judge(bundle: Bundle, test: ImageFolder) -> Evaluation:
        session = Session(bundle)
        outputs = collect_outputs(session, test)
        return evaluate(session, test, outputs, bundle.manifest.thresholds)

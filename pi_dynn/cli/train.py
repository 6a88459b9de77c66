"""`pi-dynn train`."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import click
import cloup

from pi_dynn.cli.options import BLOCKS, BLOCKS_OR_ALL, NUMBERS
from pi_dynn.cli.printing import show
from pi_dynn.cli.progress import progress
from pi_dynn.cli.train_options import (
    PATH,
    data_options,
    data_settings,
    image_options,
    image_settings,
    preset_option,
    recipe,
    recipe_options,
    run_options,
    take_preset,
)

if TYPE_CHECKING:
    from pi_dynn.train.engine import Callback, TensorBoardCallback
    from pi_dynn.train.processes import Processes
    from pi_dynn.train.records import TrainPlan, TrainResult
    from pi_dynn.train.run import ImageTraining, TrainSettings
    from pi_dynn.train.run_exits import ExitTraining


@click.group()
def command() -> None:
    """Train a network, distil it into a smaller one, or teach it to stop early.

    Three stages lead to a bundle: `transfer` learns the classes of your images, `distill` hands what a large
    network knows to a small one, `exits` adds heads and gates to a trained network, chooses the exits worth
    having and writes the bundle. Any of them goes on with --resume after an interruption, and all run on several
    processes or machines under torchrun: `torchrun --nproc-per-node 2 -m pi_dynn.cli train transfer ...`.

    \b
    Examples:
      pi-dynn train transfer --data ucm --model gfnet_12_384 --image-size 128 --out runs/teacher
      pi-dynn train distill --data ucm --teacher runs/teacher/best.safetensors --image-size 128 --out runs/student
      pi-dynn train exits --data ucm --init runs/student/best.safetensors --out runs/exits
    """


@command.command(cls=cloup.Command)
@cloup.option_group(
    "Network",
    preset_option,
    cloup.option("--model", metavar="NAME", help="Network, or torchvision:NAME. [default: that of --init]"),
    cloup.option("--init", type=PATH, metavar="CKPT", help="Weights to start from, but for heads: a file, embedded."),
    cloup.option("--pretrained", is_flag=True, help="Start from its own weights: `pi-dynn models` lists them."),
    cloup.option(
        "--exits", type=BLOCKS_OR_ALL, metavar="B1,B2,...", help="Train exits after these blocks, or after all, along."
    ),
    cloup.option(
        "--exit-weight", type=click.FloatRange(0.001), default=0.3, show_default=True, help="Of each exit's loss."
    ),
)
@data_options
@image_options
@recipe_options(epochs=100, lr=1e-3, weight_decay=0.05)
@run_options
def transfer(**given: Any) -> None:
    """Train a network on a folder of images, from scratch or from a checkpoint.

    \b
    Example:
      pi-dynn train transfer --data ucm --model gfnet_12_192 --image-size 128 --out runs/ucm
      pi-dynn train transfer --data ucm --model efficientnet_lite0 --pretrained --image-size 128 --out runs/lite
    """
    _train(given, _image_job)


@command.command(cls=cloup.Command)
@cloup.option_group(
    "Teacher and student",
    preset_option,
    cloup.option("--teacher", required=True, metavar="FILE", help="Bundle, checkpoint, or NAME=FILE."),
    cloup.option("--student", "model", default="gfnet_12_192", show_default=True, metavar="NAME"),
    cloup.option("--init", type=PATH, metavar="CKPT", help="Weights of a distilled network to start from."),
    cloup.option("--loss", "kind", type=click.Choice(["hard", "soft"]), default="hard", show_default=True),
    cloup.option("--alpha", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Share of the teacher."),
    cloup.option("--temperature", type=click.FloatRange(0.01), default=3.0, show_default=True, help="Of soft loss."),
)
@data_options
@image_options
@recipe_options(epochs=100, lr=1e-3, weight_decay=0.05)
@run_options
def distill(**given: Any) -> None:
    """Teach a small network with a distillation token what a trained one knows.

    \b
    Example:
      pi-dynn train distill --data ucm --teacher teacher.safetensors --image-size 128 --out runs/student
    """
    _train(given, _image_job)


@command.command(cls=cloup.Command)
@cloup.option_group(
    "Network and exits",
    preset_option,
    cloup.option("--init", type=PATH, metavar="CKPT", help="Trained network: a file, or embedded; its weights stay."),
    cloup.option("--model", metavar="NAME", help="Network of --init. [default: from the file]"),
    cloup.option("--joint", "joint_model", metavar="NAME", help="Train this network and its exits together instead."),
    cloup.option("--pretrained", is_flag=True, help="Start --joint from the network's own weights."),
    cloup.option("--joint-epochs", type=click.IntRange(1), default=100, show_default=True, help="Of --joint."),
    cloup.option(
        "--exit-weight", type=click.FloatRange(0.001), default=0.3, show_default=True, help="Of each exit's loss."
    ),
    cloup.option(
        "--exits",
        type=BLOCKS_OR_ALL,
        default="all",
        show_default=True,
        metavar="B1,B2,...",
        help="Blocks to put exits after.",
    ),
    cloup.option("--exit-heads", type=click.Choice(["cls", "cls+dist"]), default="cls", show_default=True),
    cloup.option("--head-epochs", type=click.IntRange(1), default=10, show_default=True, help="At most, heads alone."),
    cloup.option("--head-patience", type=click.IntRange(1), default=2, show_default=True, help="Epochs, per head."),
    cloup.option("--trade-off", type=click.FloatRange(0), default=0.7, show_default=True, help="More leaves earlier."),
    cloup.option("--turn", type=click.IntRange(1), default=200, show_default=True, help="Batches per turn."),
    cloup.option("--all-views", is_flag=True, help="Use the eight turned and flipped views of every image."),
    cloup.option("--most-exits", type=click.IntRange(1), default=4, show_default=True, help="Exits to keep at most."),
    cloup.option("--keep-exits", type=BLOCKS, metavar="B1,B2,...", help="Keep these exits, not the best."),
    cloup.option("--thresholds", type=NUMBERS, metavar="T1,T2,...", help="... at this threshold, or one for each."),
    cloup.option("--tolerated-loss", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Of accuracy."),
    cloup.option(
        "--precision",
        type=click.Choice(["int8", "int8-static", "fp32"]),
        help="[default: int8; for convolutions int8-static, with ranges set by training images]",
    ),
)
@data_options
@image_options
@recipe_options(epochs=20, lr=1e-2, weight_decay=5e-4)
@run_options
def exits(**given: Any) -> None:
    """Add exits to a trained network, choose those worth having, and write the bundle.

    \b
    Example:
      pi-dynn train exits --data ucm --init student.safetensors --out runs/exits
    """
    _train(given, _exits_job)


def _image_job(given: dict[str, Any], processes: "Processes") -> "ImageTraining":
    """The transfer or distillation the options describe."""
    from pi_dynn.train.run import ImageTraining

    return ImageTraining(_image_job_settings(given), processes)


def _image_job_settings(given: dict[str, Any]) -> "TrainSettings":
    from pi_dynn.train.run import TeachingSettings, TrainSettings

    teaching = None
    if "teacher" in given:
        names = ("teacher", "kind", "alpha", "temperature")
        teaching = TeachingSettings(**{name: given[name] for name in names})
    return TrainSettings(
        data=data_settings(given),
        out=given["out"],
        recipe=recipe(given, given["ema"]),
        images=image_settings(given),
        model=given["model"],
        init=given["init"],
        pretrained=given.get("pretrained", False),
        image_size=given["image_size"],
        warmup_epochs=given["warmup_epochs"],
        drop_path=given["drop_path"],
        exits=given.get("exits"),
        exit_weight=0.0 if given.get("exits") is None else given["exit_weight"],
        teaching=teaching,
        resume=given["resume"],
    )


def _exits_job(given: dict[str, Any], processes: "Processes") -> "ExitTraining":
    """The exits stage the options describe."""
    from pi_dynn.train.run_exits import ExitsSettings, ExitTraining

    if (given["init"] is None) == (given["joint_model"] is None):
        raise click.UsageError("give either --init with a trained network, or --joint to train one with its exits")
    if given["pretrained"] and given["joint_model"] is None:
        raise click.UsageError("--pretrained goes with --joint NAME: --init has weights of its own")
    joint = None
    if given["joint_model"] is not None:
        own = {"model": given["joint_model"], "epochs": given["joint_epochs"], "lr": 1e-3, "final_lr": 1e-5}
        joint = _image_job_settings(given | own | {"weight_decay": 0.05, "out": given["out"] / "joint"})
    of_exits = recipe(given)
    settings = ExitsSettings(
        data=data_settings(given),
        out=given["out"],
        recipe=of_exits,
        warmup=replace(of_exits, epochs=given["head_epochs"], patience=0),
        init=given["init"],
        model=given["model"],
        image_size=given["image_size"],
        joint=joint,
        exits=given["exits"],
        exit_heads=given["exit_heads"],
        head_patience=given["head_patience"],
        trade_off=given["trade_off"],
        turn=given["turn"],
        all_views=given["all_views"],
        crop=None if given["crop"] == 1.0 else given["crop"],
        most_exits=given["most_exits"],
        tolerated_loss=given["tolerated_loss"],
        keep=given["keep_exits"],
        thresholds=given["thresholds"],
        precision=given["precision"],
        resume=given["resume"],
    )
    return ExitTraining(settings, processes)


class ConsoleCallback:
    """Prints a line for each epoch, on stderr or as JSON, and moves the progress bar; in one of the processes only."""

    def __init__(
        self, advance: Callable[[], None], as_json: bool, prints: bool, log: "TensorBoardCallback | None"
    ) -> None:
        self._advance, self._as_json, self._prints, self._log = advance, as_json, prints, log

    def on_step(self, steps: int) -> None:
        for _ in range(steps):
            self._advance()

    def on_epoch(self, name: str, row: dict[str, float]) -> None:
        """Print the figures of an epoch of the stage `name`: a line of text, or of JSON."""
        from pi_dynn.train.text import epoch_text

        if not self._prints:
            return
        if self._as_json:
            click.echo(json.dumps({"stage": name, **row}))
        else:
            show(epoch_text(name, row), err=True)
        if self._log is not None:
            self._log.on_epoch(name, row)


def _train(given: dict[str, Any], build: "Callable[[dict[str, Any], Processes], ImageTraining | ExitTraining]") -> None:
    """Build the job, then plan or run it, in each of the processes there are."""
    from pi_dynn.train.processes import open_processes

    given = take_preset(given)
    with ExitStack() as stack:
        processes = stack.enter_context(open_processes(given["device"]))
        if given["dry_run"]:
            given = given | {"out": Path(stack.enter_context(TemporaryDirectory(prefix="pi-dynn-")))}
        job = build(given, processes)
        if given["dry_run"]:
            _show_plan(job.plan(), given["as_json"], processes.first)
            return
        log = None
        if given["tensorboard"] and processes.first:
            from pi_dynn.train.engine import TensorBoardCallback

            log = TensorBoardCallback(given["out"] / "tensorboard")
            stack.callback(log.close)
        advance = stack.enter_context(progress(job.kind, total=job.total_steps, enabled=processes.first))
        callback = ConsoleCallback(advance, given["as_json"], processes.first, log)
        try:
            # It has the same methods as a Callback, which is in a module that is slow to import.
            result = job.run(cast("Callback", callback))
        except KeyboardInterrupt:
            raise click.Abort(f"the same command with --resume goes on in {given['out']}") from None
    if processes.first:
        _show_result(result, given["as_json"])


def _show_plan(plan: "TrainPlan", as_json: bool, prints: bool) -> None:
    from pi_dynn.train.text import plan_text

    if prints:
        if as_json:
            click.echo(json.dumps({"plan": plan.to_dict()}))
        else:
            show(plan_text(plan))


def _show_result(result: "TrainResult", as_json: bool) -> None:
    from pi_dynn.train.text import result_text

    if as_json:
        click.echo(json.dumps({"result": result.to_dict()}))
    else:
        show(result_text(result))

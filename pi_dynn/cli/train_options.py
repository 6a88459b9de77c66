"""Options the stages of training share, and the settings they make."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from pi_dynn.cli.options import json_option

if TYPE_CHECKING:
    from pi_dynn.train.data import DataSettings
    from pi_dynn.train.recipe import Recipe
    from pi_dynn.train.run import ImageSettings

PATH = click.Path(path_type=Path)


data_options = cloup.option_group(
    "Images",
    cloup.option("--data", type=PATH, required=True, metavar="DIR", help="One folder per class."),
    cloup.option("--layout", metavar="NAME", help="Published set the folder must be a whole copy of, e.g. ucm."),
    cloup.option("--partial", is_flag=True, help="Go on with a part of the published set."),
    cloup.option("--split", type=PATH, metavar="FILE", help="Split to use or write. [default: OUT/split.json]"),
    cloup.option("--test-share", type=click.FloatRange(0, 0.9), help="Share reported on. [default: 0.15]"),
    cloup.option("--calibrate-share", type=click.FloatRange(0, 0.9), default=0.15, show_default=True),
)
"""Which images, and how they are shared out."""


run_options = cloup.option_group(
    "The run",
    cloup.option("--out", type=PATH, required=True, metavar="DIR", help="Weights, logs and state of the run."),
    cloup.option("--resume", is_flag=True, help="Go on after the last whole epoch of the run in OUT."),
    cloup.option("--dry-run", is_flag=True, help="Print the plan and the time it would take, train nothing."),
    cloup.option("--seed", type=click.IntRange(0), default=0, show_default=True),
    cloup.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps. [default: a GPU if there is one]"),
    cloup.option("--amp", is_flag=True, help="Compute in bfloat16 where that is safe."),
    cloup.option("--workers", type=click.IntRange(0), help="Processes that load. [default: cores - 1, 1 to 8]"),
    cloup.option("--memory-gb", type=float, default=2.0, show_default=True, help="Hold decoded images up to it."),
    cloup.option("--tensorboard", is_flag=True, help="Log for TensorBoard to OUT/tensorboard as well."),
    json_option,
)
"""Where the run lives, how it is watched, and what it computes on."""


preset_option = cloup.option(
    "--preset", metavar="NAME", help="Network, size and exits as published: `pi-dynn models --presets` lists them."
)


def take_preset(given: dict[str, Any]) -> dict[str, Any]:
    """The options with what a preset says in the place of those that were left out.

    Raises: UnknownModel; click.UsageError for a preset that has nothing for the stage.
    """
    name = given.pop("preset")
    if name is None:
        return given
    from pi_dynn.models.presets import TEACHER, preset_named

    context, preset = click.get_current_context(), preset_named(name)
    if "teacher" in given:
        if not preset.distilled:
            raise click.UsageError(f"{name} was not distilled: give a preset such as {name.split('-')[0]}-distil")
        own: dict[str, Any] = {"model": preset.model, "image_size": preset.image_size}
    elif "joint_model" not in given:
        own = {"model": TEACHER if preset.distilled else preset.model, "image_size": preset.image_size}
    elif not preset.exits:
        raise click.UsageError(f"{name} has no exits: give a preset such as {name}-dynn")
    else:
        own = {"exit_heads": preset.exit_heads, "keep_exits": preset.exits, "thresholds": preset.thresholds}
    left_out = (click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP, None)
    return given | {key: value for key, value in own.items() if context.get_parameter_source(key) in left_out}


def recipe_options(epochs: int, lr: float, weight_decay: float) -> Callable:
    """Optimiser and schedule, with the defaults of a stage."""
    options: Callable = cloup.option_group(
        "Optimiser and schedule",
        cloup.option("--epochs", type=click.IntRange(1), default=epochs, show_default=True),
        cloup.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Of all processes."),
        cloup.option("--optimizer", type=click.Choice(["adamw", "sgd"]), default="adamw", show_default=True),
        cloup.option("--lr", type=float, default=lr, show_default=True, help="Learning rate after warm-up."),
        cloup.option("--final-lr", type=float, help="Learning rate at the end. [default: a hundredth of --lr]"),
        cloup.option("--weight-decay", type=click.FloatRange(0), default=weight_decay, show_default=True),
        cloup.option("--clip-grad", type=click.FloatRange(0), default=1.0, show_default=True, help="0: do not clip."),
        cloup.option("--patience", type=click.IntRange(0), default=0, help="Stop after so many epochs without gain."),
    )
    return options


image_options = cloup.option_group(
    "Training images",
    cloup.option("--image-size", type=click.IntRange(16), help="Pixels. [default: those of --init]"),
    cloup.option("--crop", type=click.FloatRange(0.1, 1), default=1.0, show_default=True, help="Centre share."),
    cloup.option(
        "--augment",
        type=click.Choice(["randaugment", "trivial", "aerial", "crop", "none"]),
        default="randaugment",
        show_default=True,
    ),
    cloup.option("--smallest-crop", type=click.FloatRange(0.05, 1), default=0.35, show_default=True),
    cloup.option("--any-way-up", is_flag=True, help="Turn by quarters too: scenes seen from above."),
    cloup.option("--mix", type=click.FloatRange(0, 1), default=0.8, show_default=True, help="Share mixed."),
    cloup.option("--label-smoothing", type=click.FloatRange(0, 0.9), default=0.1, show_default=True),
    cloup.option("--drop-path", type=click.FloatRange(0, 0.9), help="[default: the network's own]"),
    cloup.option("--ema", type=click.FloatRange(0, 0.99999), default=0.998, show_default=True, help="0: none."),
    cloup.option("--warmup-epochs", type=click.FloatRange(0), default=5.0, show_default=True),
)
"""How images are changed while training."""


def data_settings(given: dict[str, Any]) -> "DataSettings":
    """The DataSettings of the options."""
    from pi_dynn.train.data import DataSettings

    return DataSettings(
        root=given["data"],
        layout=given["layout"],
        partial=given["partial"],
        split=given["split"],
        test_share=given["test_share"],
        calibrate_share=given["calibrate_share"],
        seed=given["seed"],
    )


def recipe(given: dict[str, Any], ema: float = 0.0) -> "Recipe":
    """The Recipe of the options."""
    from pi_dynn.train.recipe import Recipe

    return Recipe(
        epochs=given["epochs"],
        batch_size=given["batch_size"],
        optimizer=given["optimizer"],
        lr=given["lr"],
        final_lr=given["lr"] / 100 if given["final_lr"] is None else given["final_lr"],
        weight_decay=given["weight_decay"],
        clip_grad=given["clip_grad"],
        ema_decay=ema,
        patience=given["patience"],
        amp=given["amp"],
        seed=given["seed"],
    )


def image_settings(given: dict[str, Any]) -> "ImageSettings":
    """The ImageSettings of the options."""
    from pi_dynn.train.run import ImageSettings

    names = ("crop", "augment", "smallest_crop", "any_way_up", "mix", "label_smoothing")
    return ImageSettings(
        **{name: given[name] for name in names},
        workers=default_workers() if given["workers"] is None else given["workers"],
        memory_bytes=round(given["memory_gb"] * 1e9),
    )


def default_workers() -> int:
    """Loading processes that leave the network a core: one less than there are for each process of the run."""
    share = (os.cpu_count() or 2) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(8, max(1, share - 1))

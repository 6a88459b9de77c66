"""The model card of a trained bundle, from records alone."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from pi_dynn.evaluate.records import Evaluation
from pi_dynn.text import mega, percent, table

CARD = """# Model card: {name}

{summary}

| | |
| --- | --- |
| network | {network} |
| classes | {classes} |
| input | {size} px square, RGB |
| file | {megabytes:.1f} MB, sha256 `{sha256}` |

## Data and rights

{data}

## Recipe

{recipe}

{stages}

The probe is fitted on UC Merced's training part and measured on its calibration part.

![Losses by views seen]({curves})

## Accuracy on the split it never saw

{images} images; no stage of training, no gate and no threshold saw them.

{accuracy}

Exits of the int8 bundle:

{exits}

Mean multiply-adds {mean_macs} of {full_macs}: {saved} saved. Int8 and fp32 give the same label for {agreement} of the
images.

All seeds, which differ from the last stage of pretraining on, on the same images:

{seeds}

Accuracy of every trained exit on its own, were all images to leave there:

{depths}

{twins}
## None of these

Answers unlike those to all 21 classes are "none of these": the limit lets at most {promised} of images like the
calibration images be rejected. Of the test images above, {rejected} are; the accuracies count their nearest class.

## Made by

`{command}`

## What it does not say

Aerial scenes of American cities from one source, 0.3 m per pixel. Photographs of other places, seasons or
resolutions will be answered less well, and of pictures that show none of the classes many still get one of them
(`benchmarks/rejection.py`).
"""


def accuracy_rows(results: Mapping[str, Evaluation]) -> str:
    """A Markdown table: each variant's accuracy with exits and at full depth."""
    rows = [
        (name, percent(result.acc1, 2), percent(result.acc5, 2), percent(result.full_depth_acc1, 2))
        for name, result in results.items()
    ]
    return table(("variant", "acc@1 with exits", "acc@5 with exits", "acc@1 full depth"), rows, markdown=True)


def exit_rows(result: Evaluation) -> str:
    """A Markdown table: images, share, accuracy and cost per exit."""
    rows = [
        (f"block {row.block_index}", str(row.count), percent(row.rate), percent(row.accuracy), mega(row.macs))
        for row in result.exits
    ]
    return table(("leaves after", "images", "share", "accuracy", "multiply-adds"), rows, markdown=True)


def seed_rows(results: Mapping[int, Evaluation]) -> str:
    """A Markdown table: what the exits cost and save, for each seed."""
    rows = [
        (
            str(seed),
            percent(result.full_depth_acc1, 2),
            percent(result.acc1, 2),
            f"{100 * (result.acc1 - result.full_depth_acc1):+.2f}",
            mega(result.mean_macs),
            percent(1 - result.mean_macs / result.full_depth_macs),
        )
        for seed, result in results.items()
    ]
    head = ("seed", "full depth", "with exits", "points", "multiply-adds", "saved")
    return table(head, [*rows, mean_row(list(results.values()))], markdown=True)


def mean_row(results: Sequence[Evaluation]) -> tuple[str, ...]:
    """The mean over the seeds, with the standard deviation of the accuracies."""
    deep, early = [result.full_depth_acc1 for result in results], [result.acc1 for result in results]
    macs, full = fmean(result.mean_macs for result in results), fmean(result.full_depth_macs for result in results)
    spread = (f" ± {100 * stdev(each):.2f}" if len(each) > 1 else "" for each in (deep, early))
    shown = [f"{percent(fmean(each), 2)}{by}" for each, by in zip((deep, early), spread, strict=True)]
    points = f"{100 * (fmean(early) - fmean(deep)):+.2f}"
    return ("mean", *shown, points, mega(macs), percent(1 - macs / full))


def stage_rows(stages: Sequence[Any], log: Sequence[Mapping]) -> str:
    """A Markdown table: what each stage of pretraining saw, how long it took, and the probe after it."""
    rows = []
    for stage in stages:
        ends = [row for row in log if row["stage"] == stage.name and "probe_ucm_calibrate" in row]
        if ends:
            last = ends[-1]
            rows.append(
                (
                    stage.name,
                    f"{stage.image_size} px",
                    f"{last['step'] * stage.batch_size:,}",
                    str(stage.batch_size),
                    f"{stage.lr:g} to {stage.final_lr:g}",
                    f"{last['cpu_s'] / 3600:.1f}",
                    percent(last["probe_ucm_calibrate"]),
                )
            )
    head = ("stage", "images", "views", "batch", "learning rate", "hours of a core", "linear probe")
    return table(head, rows, markdown=True)


def depth_rows(accuracy: Mapping[int, float]) -> str:
    """A Markdown table: block and accuracy."""
    rows = [(f"block {block}", percent(value, 2)) for block, value in accuracy.items()]
    return table(("exit after", "acc@1"), rows, markdown=True)

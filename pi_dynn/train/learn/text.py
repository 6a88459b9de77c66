"""`learn` in text: what the folder holds, the plan, the summary, the model card."""

import math
from collections.abc import Mapping
from datetime import timedelta
from shlex import quote

from pi_dynn.data.look import FolderLook
from pi_dynn.evaluate.text import evaluation_text
from pi_dynn.text import counted, milliseconds, percent, table
from pi_dynn.train.records import LEAST_TO_CHOOSE, TOLERATED_LOSS, Answer, LearnPlan, LearnResult

MOST_LINES = 8  # of files that are left out; all are in look.json
MOST_PAIRS = 3  # of classes taken for each other
SURE = 0.9  # a wrong answer given with this probability is worth a look at its label


def look_text(look: FolderLook, parts: Mapping[str, int]) -> str:
    """The classes with their images, what is left out and why, groups, parts, and advice."""
    lines = [table(("class", "images"), [(name, str(count)) for name, count in look.classes.items()])]
    least, middle, most = look.shorter_side_px
    sides = f"{least} px" if least == most else f"{least} to {most} px, {middle} in the middle"
    lines.append(f"{counted(sum(look.classes.values()), 'image')}, their shorter side {sides}")
    lines += [f"left out: {one.path}: {one.reason}" for one in look.left_out[:MOST_LINES]]
    if len(look.left_out) > MOST_LINES:
        lines.append(f"left out: {counted(len(look.left_out) - MOST_LINES, 'more file')}, all in look.json")
    if look.alike:
        shown = ", ".join(look.alike[0][:3])
        lines.append(f"pictures that look alike stay in one part: {counted(len(look.alike), 'group')}, such as {shown}")
    if len(look.together) > len(look.alike):
        lines.append(
            f"pictures that belong together by their names stay in one part: {counted(len(look.together), 'group')}"
        )
    lines.append("shared out: " + ", ".join(f"{count:,} to {name}" for name, count in parts.items()))
    return "\n".join([*lines, *(f"advice: {line}" for line in look.advice)])


def learn_plan_text(plan: LearnPlan) -> str:
    """What is going to be done, and how long it will take by a few real steps."""
    what = "all of it" if plan.how == "whole" else "its heads alone"
    duration = timedelta(seconds=round(plan.estimated_s))
    return (
        f"plan: {plan.model} at {plan.image_size} px, {what}: {plan.reason}; about {duration} more "
        f"({milliseconds(plan.step_s)} a step of {plan.batch_size} images)"
    )


def wrong_answers(result: LearnResult) -> list[Answer]:
    """Test images answered wrong, the surest first: a wrong label looks like this, too."""
    return sorted((one for one in result.answers if one.answer != one.label), key=lambda one: -one.probability)


def confused_pairs(result: LearnResult) -> list[tuple[str, str, int]]:
    """Classes (shown, answered) taken for each other most often, with the number of test images."""
    names = result.classes
    pairs = [
        (names[label], names[answer], count)
        for label, row in enumerate(result.confusion)
        for answer, count in enumerate(row)
        if label != answer and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:MOST_PAIRS]


def photograph_text(result: LearnResult) -> list[str]:
    """What to photograph more of, and which labels to look at, in plain sentences."""
    lines = [
        f"{shown} was taken for {answered} {counted(count, 'time')}: add photographs of both where they look alike"
        for shown, answered, count in confused_pairs(result)
    ]
    weak = min(result.per_class, key=lambda row: row.right / row.images if row.images else 1.0)
    if weak.images and weak.right < weak.images:
        lines.append(
            f"{weak.name} is answered worst ({weak.right} of {weak.images} right): add photographs of it first"
        )
    sure = [one for one in wrong_answers(result) if one.probability >= SURE]
    if sure:
        others = f" ({len(sure) - 1} more on the page)" if len(sure) > 1 else ""
        lines.append(f"{sure[0].path} is answered wrong, and very surely{others}: is it in the right folder?")
    return [*lines, *result.advice]


def class_table(result: LearnResult, markdown: bool = False) -> str:
    """One line per class: images, right answers, their share with its 95 % interval."""
    rows = [
        (
            row.name,
            str(row.images),
            str(row.right),
            percent(row.right / row.images) if row.images else "-",
            f"{percent(row.interval[0])} .. {percent(row.interval[1])}",
        )
        for row in result.per_class
    ]
    return table(("class", "images", "right", "accuracy", "95 % interval"), rows, markdown=markdown)


def headline(result: LearnResult) -> str:
    """The accuracy with its interval, and what exits save and cost if there are any, in one line."""
    judged = result.evaluation
    right = (
        f"{percent(judged.acc1)} of {counted(judged.images, 'test image')} right (95 % interval "
        f"{percent(result.interval[0])} to {percent(result.interval[1])})"
    )
    if not result.exit_blocks:
        return right
    saved = 1 - judged.mean_macs / judged.full_depth_macs
    return (
        f"{right}, {percent(saved)} of the multiply-adds saved by leaving early, which "
        f"{'costs' if result.exits_cost >= 0 else 'gains'} {100 * abs(result.exits_cost):.2f} points"
    )


def _epochs(result: LearnResult) -> str:
    """How long the network learned, and that the time was up before the plan was."""
    early = 0 < result.epochs < result.plan.epochs and result.unfinished is None
    return counted(result.epochs, "epoch") + (f" of {result.plan.epochs}, for the time was up" if early else "")


def _no_exits(result: LearnResult) -> str:
    """Why there are no exits."""
    few = result.parts.get("calibrate", 0)
    if few >= LEAST_TO_CHOOSE:
        return "no exits: leaving early would not have paid"
    images, all_images = counted(few, "image"), sum(result.parts.values())
    needed = "" if not few else f", about {math.ceil(all_images * LEAST_TO_CHOOSE / few):,} in all parts"
    return (
        f"no exits: {images} to calibrate cannot tell when leaving early is safe, which takes {LEAST_TO_CHOOSE}{needed}"
    )


def learned_text(result: LearnResult) -> str:
    """The summary a person reads at the end."""
    plan = result.plan
    parts = [f"{name} {percent(value)}" for name, value in result.chosen_accuracy.items()]
    trained = f", {_epochs(result)}" if result.kept == "whole" else ""
    lines = [
        *([f"stopped early: {result.unfinished}; what follows is the best so far"] if result.unfinished else []),
        headline(result),
        f"kept: {result.kept} ({plan.model} at {plan.image_size} px{trained}; full depth on the calibrate part: "
        f"{', '.join(parts)})",
        _precision_text(result),
        _rejection_text(result),
        f"exits after blocks {', '.join(map(str, result.exit_blocks))}" if result.exit_blocks else _no_exits(result),
        *predicted_lines(result),
        f"bundle {result.bundle}, {f'page {result.page}, ' if result.page else ''}card {result.card}",
        f"took {timedelta(seconds=round(result.took_s))}",
    ]
    return "\n".join(lines)


def predicted_lines(result: LearnResult) -> list[str]:
    """What an answer is predicted to take on boards, a line each."""
    return [
        f"{one.title}, predicted and not measured: {milliseconds(one.mean_s)} an answer, "
        + (f"{milliseconds(one.full_depth_s)} at full depth, " if result.exit_blocks else "")
        + f"one thread of {one.runtime} (published networks were off by up to {percent(one.worst_error, 0)})"
        for one in result.predicted
    ]


def next_line(result: LearnResult) -> str:
    """The command to try next."""
    return f"pi-dynn classify {_a_picture(result)} --bundle {quote(result.bundle)}"


def _a_picture(result: LearnResult) -> str:
    """A test image to try the bundle on, as a shell wants it."""
    return quote(f"{result.evaluation.dataset}/{result.answers[0].path}")


def _rejection_text(result: LearnResult) -> str:
    rejected = result.evaluation.rejected
    if rejected is None:
        return 'never answers "none of these": the accuracy is that of an answer to every picture'
    return (
        f'{percent(rejected)} of the test images are "none of these" (--accept-all answers all; the accuracy counts '
        "every answer)"
    )


def _precision_text(result: LearnResult) -> str:
    agreement = "" if result.int8_agreement is None else f"int8 agrees with fp32 on {percent(result.int8_agreement)}"
    if result.precision_reason is None:
        return f"{result.precision}: {agreement} of the calibrate part"
    return f"{result.precision}, not int8: {result.precision_reason}"


def model_card(result: LearnResult) -> str:
    """The model card in Markdown."""
    plan, judged = result.plan, result.evaluation
    parts = ", ".join(f"{count:,} to {name}" for name, count in result.parts.items())
    return "\n".join(
        [
            "# Model card",
            "",
            f"`{plan.model}` at {plan.image_size} px, {result.precision}, made by `pi-dynn learn`.",
            "",
            f"- **Answers**: {', '.join(result.classes)}; {_rejection_text(result)}.",
            f"- **Starts from**: {result.source}.",
            f"- **Learned from**: `{result.folder}`, {counted(sum(result.parts.values()), 'image')} ({parts}; seed "
            f"{result.seed}, split `{result.split}`); {counted(result.left_out, 'file')} left out.",
            f"- **Training**: {_training_text(result)}.",
            f"- **Precision**: {_precision_text(result)}.",
            *(f"- {line}." for line in predicted_lines(result)),
            f"- **Exits**: {_exits_text(result)}.",
            "",
            "## On the test part, which took no part in any of this",
            "",
            headline(result) + ".",
            "",
            class_table(result, markdown=True),
            "",
            "```",
            evaluation_text(judged),
            "```",
            "",
            "## What would help",
            "",
            *(f"- {line}" for line in photograph_text(result) or ["Nothing stands out."]),
            "",
        ]
    )


def _exits_text(result: LearnResult) -> str:
    """The exits and how their thresholds were chosen, or why there are none."""
    if not result.exit_blocks:
        return _no_exits(result)
    return (
        f"after blocks {', '.join(map(str, result.exit_blocks))}; thresholds chosen on the calibrate part by "
        f"{result.score}, to spoil at most {percent(TOLERATED_LOSS)} of the answers there; then made stricter, at most "
        f"tenfold, towards {percent(TOLERATED_LOSS / 2, 2)} in cross-validation"
    )


def _training_text(result: LearnResult) -> str:
    end = f" ({result.unfinished})" if result.unfinished else ""
    if result.kept == "heads":
        tried = "whole" in result.chosen_accuracy
        reason = "trained whole it answered no better on the calibrate part" if tried else result.plan.reason
        return f"heads alone on the pretrained network{end}; {reason}"
    turned = ", pictures turned by quarters" if result.any_way_up else ""
    epochs = counted(result.epochs, "epoch")
    return f"{epochs} of the whole network with its exits, the statistics of batch norms kept{turned}{end}"

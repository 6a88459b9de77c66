"""Training as text: the plan, a line per epoch, the result."""

from collections.abc import Mapping
from datetime import timedelta

from pi_dynn.evaluate.text import evaluation_text
from pi_dynn.text import counted, milliseconds, percent
from pi_dynn.train.records import TrainPlan, TrainResult

STAGES = {"warmup": "heads", "bilevel": "gates and heads"}
FIGURES = {  # of a row of log.csv, as shares; the others stay in the log
    "accuracy": "accuracy",
    "joint_accuracy": "mean accuracy",
    "mean_accuracy": "mean accuracy of the exits",
    "gated_accuracy": "accuracy with exits",
    "mean_cost": "mean cost",
}


def plan_text(plan: TrainPlan) -> str:
    """The plan with its estimated times."""
    parts = ", ".join(f"{count:,} to {name}" for name, count in plan.parts.items())
    lines = [
        f"{plan.stage}: {plan.model}, {plan.parameters:,} parameters, {plan.trained_parameters:,} of them trained",
        f"{counted(sum(plan.parts.values()), 'image')} of {counted(plan.classes, 'class')} at {plan.image_size} px: "
        f"{parts}",
    ]
    for name, recipe in plan.recipes.items():
        lines.append(
            f"{name}: {counted(recipe['epochs'], 'epoch')} of {counted(plan.steps_per_epoch, 'step')}, "
            f"batches of {recipe['batch_size']}, {recipe['optimizer']} from {recipe['lr']:g} to {recipe['final_lr']:g}"
            + (", bfloat16" if recipe["amp"] else "")
        )
    lines.append(f"{counted(plan.processes, 'process')} on {plan.device}")
    if plan.step_s is not None and plan.estimated_s is not None:
        duration = timedelta(seconds=round(plan.estimated_s))
        lines.append(
            f"about {duration} in all: {milliseconds(plan.step_s)} a step, {percent(plan.waited_share)} of it waiting "
            "for data"
        )
    return "\n".join(lines)


def epoch_text(name: str, row: Mapping[str, float]) -> str:
    """One line for one epoch: the loss, figures on the calibrate part, and the speed."""
    figures = "".join(f", {text} {percent(row[key])}" for key, text in FIGURES.items() if key in row)
    speed = f"{row['images_per_s']:.0f} images/s, {percent(row['waited'], 0)} waiting"
    return f"{STAGES.get(name, name)}, epoch {row['epoch']:.0f}: loss {row['loss']:.3f}{figures} ({speed})"


def result_text(result: TrainResult) -> str:
    """The result of training."""
    lines = [
        f"{result.stage}: {counted(result.epochs, 'epoch')}, best {result.best_epoch}",
        f"accuracy {percent(result.accuracy, 2)} on the calibrate part, "
        f"{percent(result.test_accuracy, 2)} on the test part",
        f"weights {result.weights}",
    ]
    if result.depth_accuracies:
        depths = "  ".join(f"{block}: {percent(value, 2)}" for block, value in result.depth_accuracies.items())
        lines.append(f"every exit alone  {depths}")
    if result.bundle is not None:
        blocks = ", ".join(str(block) for block in result.exit_blocks) or "none"
        limit = "a threshold for each" if result.threshold is None else f"threshold {result.threshold:g}"
        lines.append(f"bundle {result.bundle}: exits after blocks {blocks}, {limit}")
    if result.evaluation is not None:
        lines.append(evaluation_text(result.evaluation))
    return "\n".join(lines)

"""Training as text: the plan, a line per epoch, the result."""

from collections.abc import Mapping
from datetime import timedelta

from pi_dynn.evaluate.text import evaluation_text
from pi_dynn.text import milliseconds, percent
from pi_dynn.train.records import TrainPlan, TrainResult

SPOKEN = ("epoch", "lr", "loss", "images_per_s", "waited")


def plan_text(plan: TrainPlan) -> str:
    """The plan with its estimated times."""
    parts = ", ".join(f"{count:,} to {name}" for name, count in plan.parts.items())
    lines = [
        f"{plan.stage}: {plan.model}, {plan.parameters:,} parameters, {plan.trained_parameters:,} of them trained",
        f"{sum(plan.parts.values()):,} images of {plan.classes} classes at {plan.image_size} px: {parts}",
    ]
    for name, recipe in plan.recipes.items():
        lines.append(
            f"{name}: {recipe['epochs']} epochs of {plan.steps_per_epoch} steps, batches of {recipe['batch_size']}, "
            f"{recipe['optimizer']} from {recipe['lr']:g} to {recipe['final_lr']:g}"
            + (", bfloat16" if recipe["amp"] else "")
        )
    lines.append(f"{plan.processes} process{'es' if plan.processes > 1 else ''} on {plan.device}")
    if plan.step_s is not None and plan.estimated_s is not None:
        duration = timedelta(seconds=round(plan.estimated_s))
        lines.append(
            f"about {duration} in all: {milliseconds(plan.step_s)} a step, {percent(plan.waited_share)} of it waiting "
            "for data"
        )
    return "\n".join(lines)


def epoch_text(name: str, row: Mapping[str, float]) -> str:
    """One line for one epoch."""
    speed = f"{row['images_per_s']:.0f} images/s, {percent(row['waited'])} waited"
    names = [key for key in row if key not in SPOKEN and not key.startswith("acc_")]  # of a dozen exits: in the log
    figures = "  ".join(f"{key} {row[key]:.4f}" for key in names)
    return f"{name} {row['epoch']:>3}  lr {row['lr']:.2e}  loss {row['loss']:.4f}  {figures}  ({speed})"


def result_text(result: TrainResult) -> str:
    """The result of training."""
    lines = [
        f"{result.stage}: {result.epochs} epochs, best {result.best_epoch}",
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

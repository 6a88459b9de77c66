"""Options of `evaluate` that ask for corrupted or hard images, and the conditions they mean."""

from collections.abc import Callable
from pathlib import Path

import click

LAYOUT_NAMES = ("imagenet-c", "imagenet-a", "imagenet-r", "imagenet-sketch")

_OPTIONS = (
    click.option(
        "--corrupt",
        metavar="NAMES",
        help="Corrupt the images: all, noise, blur, weather, digital, extra, or names; needs [robustness].",
    ),
    click.option("--severity", default="1,3,5", show_default=True, metavar="S1,S2,...", help="... this much, 1 to 5."),
    click.option("--layout", type=click.Choice(LAYOUT_NAMES), help="DATASET_DIR is a copy of this robustness set."),
    click.option(
        "--wnids",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="WordNet ids of the classes, one a line. [default: the bundle's labels]",
    ),
    click.option("--partial", is_flag=True, help="Allow a part of a robustness set."),
)


def robustness_options(command: Callable) -> Callable:
    """--corrupt, --severity, --layout, --wnids and --partial."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def severities_given(text: str) -> list[int]:
    """The severities in a list such as 1,3,5. Raises: click.UsageError."""
    try:
        levels = sorted({int(level) for level in text.split(",")})
    except ValueError:
        levels = []
    if not levels or not set(levels) <= {1, 2, 3, 4, 5}:
        raise click.UsageError(f"--severity {text!r}: expected numbers of 1 to 5 separated by commas")
    return levels


def evaluate_conditions(session, conditions, thresholds, record, dataset, layout, collect):
    """The result over all conditions; `collect` gives the outputs of one."""
    from pi_dynn.jobs.calibrate import rescored
    from pi_dynn.jobs.robustness import judge_conditions, summarise
    from pi_dynn.robustness_records import RobustnessResult

    def outputs_of(condition):
        outputs = collect(condition)
        return outputs if record is None else rescored(outputs, record)

    # Exits on record are what clean images do where a set brings none of its own.
    expected = record.exit_rates if record is not None and layout is not None else None
    results = judge_conditions(conditions, outputs_of, thresholds, session.manifest, expected)
    return RobustnessResult(
        dataset=str(dataset),
        layout=layout,
        thresholds=thresholds,
        exits=session.manifest.blocks,
        conditions=results,
        summary=summarise(results, published=layout == "imagenet-c"),
        bundle=session.bundle.sha256,
    )


def hard_conditions(session, dataset, layout, wnids, partial) -> list:
    """Conditions of a copy of a robustness set."""
    from pi_dynn.data.robustness import open_hard_images, read_wnids, wnids_of

    labels = session.manifest.labels
    ids = wnids_of(labels) if wnids is None else read_wnids(wnids, len(labels))
    return [
        (part.corruption, part.severity, part.data, None)
        for part in open_hard_images(dataset, layout, labels, ids, partial)
    ]

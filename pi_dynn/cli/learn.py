"""`pi-dynn learn`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from pi_dynn.cli.options import json_option
from pi_dynn.cli.printing import show
from pi_dynn.cli.status import ExitStatus
from pi_dynn.text import counted

if TYPE_CHECKING:
    from pi_dynn.data.folders import ImageFolder
    from pi_dynn.data.look import FolderLook
    from pi_dynn.report.learned import Gallery, Picture
    from pi_dynn.train.learn.learning import LearnCallback
    from pi_dynn.train.records import Answer, LearnPlan, LearnResult

MOST_PICTURES = 12  # of a gallery
PATH = click.Path(path_type=Path)


@click.command(cls=cloup.Command)
@click.argument("folder", type=PATH)
@cloup.option_group(
    "Most used",
    cloup.option(
        "-o",
        "--output",
        type=PATH,
        metavar="BUNDLE",
        help="Bundle to write; NAME.onnx.zip and NAME.tflite.zip are for boards without torch. [default: FOLDER.pt]",
    ),
    cloup.option("--minutes", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Time to fit into."),
    cloup.option("--resume", is_flag=True, help="Go on with a run that was interrupted."),
    json_option,
)
@cloup.option_group(
    "For a board",
    cloup.option(
        "--for",
        "board",
        type=click.Choice(["pi4", "pi5"]),
        help="The board that --budget-ms is for. Its milliseconds are predicted, not measured.",
    ),
    cloup.option(
        "--budget-ms",
        type=click.FloatRange(0, min_open=True),
        metavar="MS",
        help="Take the largest pretrained network and image size whose answers at full depth are within that.",
    ),
)
@cloup.option_group(
    "Images",
    cloup.option("--layout", metavar="NAME", help="Published set that FOLDER must be a copy of, e.g. ucm."),
    cloup.option("--partial", is_flag=True, help="With --layout: the folder may be a part of that set."),
    cloup.option("--split", type=PATH, metavar="FILE", help="Parts train, calibrate, test. [default: made here]"),
    cloup.option(
        "--any-way-up/--upright",
        default=None,
        help="Scenes seen from above are turned by quarters. [default: found out]",
    ),
    cloup.option(
        "--reject",
        type=click.FloatRange(0, 50),
        default=5.0,
        show_default=True,
        metavar="PERCENT",
        help='Answer "none of these" so that at most this share of images like these is; 0: never.',
    ),
)
@cloup.option_group(
    "Network and training",
    cloup.option(
        "--model",
        metavar="NAME",
        help="Pretrained network. [default: efficientnet_lite0, or by the budget]",
    ),
    cloup.option("--image-size", type=click.IntRange(32), help="Pixels. [default: 160; 128 or 96 where time is short]"),
    cloup.option(
        "--train",
        "how",
        type=click.Choice(["auto", "whole", "heads"]),
        default="auto",
        show_default=True,
        help="What learns: the whole network, or its heads alone.",
    ),
    cloup.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of split and training."),
)
def command(folder: Path, output: Path | None, as_json: bool, **given: Any) -> int:
    """Make a bundle from a folder that holds one folder of photographs per class.

    Looks at the photographs, shares them out, trains a network that knows ImageNet on them with exits, makes it
    int8, checks it, and judges it on photographs that took no part. Beside mine.pt a folder mine.run holds the
    page, the model card, the split and the weights. Ctrl-C keeps the best so far.

    \b
    Examples:
      pi-dynn learn photos
      pi-dynn learn photos -o mine.pt --minutes 8
      pi-dynn learn photos -o mine.onnx.zip
      pi-dynn learn photos -o mine.pt --for pi4 --budget-ms 15
    """
    from pi_dynn.errors import InputError
    from pi_dynn.files import write_text
    from pi_dynn.train.learn.learning import Learning, clear_write_errors
    from pi_dynn.train.learn.settings import LearnSettings
    from pi_dynn.train.learn.text import learned_text, model_card, next_line

    out = output or Path(f"{folder.resolve().name}.pt")
    budget_ms = given.pop("budget_ms")
    if (budget_ms is None) != (given["board"] is None):
        raise click.UsageError("--for and --budget-ms belong together: give both, or neither")
    budget_s = None if budget_ms is None else budget_ms / 1e3
    settings = LearnSettings(folder, out, reject=given.pop("reject") / 100, budget_s=budget_s, **given)
    try:
        learning = Learning(settings, _console(as_json))
        result = learning.run()
    except KeyboardInterrupt:
        click.echo("the same line with --resume goes on from the last whole epoch", err=True)
        raise
    with clear_write_errors(settings.work):
        write_text(settings.work / "result.json", json.dumps(result.to_dict(), indent=1) + "\n")
        write_text(result.card, model_card(result))
        try:
            write_text(result.page, _page(result, learning.data.test))
        except InputError as error:  # without the extra [report]
            click.echo(f"no page is written: {error}", err=True)
            result = replace(result, page="")
    if as_json:
        click.echo(json.dumps({"result": result.to_dict()}))
    else:
        show(learned_text(result))
        click.echo(f"try it: {next_line(result)}")  # in one piece, to be pasted
    interrupted = result.unfinished is not None and result.unfinished.startswith("interrupted")
    return ExitStatus.INTERRUPTED if interrupted else ExitStatus.OK


def _console(as_json: bool) -> "LearnCallback":
    """What is shown on the way: notes on stderr, or records as JSON on stdout."""
    from pi_dynn.train.learn.learning import LearnCallback
    from pi_dynn.train.learn.text import learn_plan_text, look_text
    from pi_dynn.train.text import epoch_text

    def tell(text: str, record: dict[str, Any]) -> None:
        if as_json:
            click.echo(json.dumps(record))
        else:
            show(text, err=True)

    class Console(LearnCallback):
        def on_look(self, look: "FolderLook", parts: dict[str, int]) -> None:
            tell(look_text(look, parts), {"look": look.to_dict(), "parts": parts})

        def on_plan(self, plan: "LearnPlan") -> None:
            tell(learn_plan_text(plan), {"plan": plan.to_dict()})

        def on_stage(self, name: str) -> None:
            if not as_json:
                show(f"... {name}", err=True)

        def on_epoch(self, name: str, row: dict[str, Any]) -> None:
            tell(epoch_text(name, row), {"stage": name, **row})

    return Console()


def _page(result: "LearnResult", test: "ImageFolder") -> str:
    """The HTML page of a result; `test` are the images it was judged on."""
    from pi_dynn import __version__
    from pi_dynn.evaluate.text import evaluation_text
    from pi_dynn.report.learned import LearnedPage, learned_page
    from pi_dynn.train.learn.text import class_table, headline, next_line, photograph_text

    plan = result.plan
    parts = ", ".join(f"{count:,} to {name}" for name, count in result.parts.items())
    return learned_page(
        LearnedPage(
            title=f"What was learned from {Path(result.folder).resolve().name}",
            headline=headline(result),
            warnings=[f"Stopped early: {result.unfinished}"] if result.unfinished else [],
            facts=[
                (
                    "network",
                    f"{plan.model} at {plan.image_size} px, {result.kept} trained, {counted(result.epochs, 'epoch')}",
                ),
                ("images", f"{sum(result.parts.values()):,}: {parts}; {result.left_out} left out"),
                ("precision", result.precision if result.precision_reason is None else result.precision_reason),
                ("bundle", result.bundle),
                ("try it", next_line(result)),
            ],
            advice=photograph_text(result),
            classes=result.classes,
            confusion=result.confusion,
            class_table=class_table(result, markdown=True),
            evaluation=result.evaluation,
            evaluation_text=evaluation_text(result.evaluation, markdown=True),
            curve=result.curve,
            version=__version__,
            galleries=_galleries(result, test),
        )
    )


def _galleries(result: "LearnResult", test: "ImageFolder") -> "list[Gallery]":
    """Wrong answers, and pictures that left early and late."""
    from pi_dynn.report.learned import Gallery, Picture
    from pi_dynn.train.learn.text import wrong_answers

    number = {test.relative(i): i for i in range(len(test))}

    def pictures(answers: "list[Answer]", show_answer: bool) -> "list[Picture]":
        names = result.classes
        return [
            Picture(
                test.source(number[one.path]),
                f"{names[one.label]}, answered {names[one.answer]} ({one.probability:.0%}): {one.path}"
                if show_answer
                else f"{names[one.answer]} ({one.probability:.0%})",
            )
            for one in answers[:MOST_PICTURES]
        ]

    right = sorted((one for one in result.answers if one.answer == one.label), key=lambda one: -one.probability)
    early = [one for one in right if one.exit_index == 0 and result.exit_blocks]
    late = [one for one in right if one.exit_index == len(result.exit_blocks) and result.exit_blocks]
    galleries = [
        Gallery(
            "Wrong answers",
            "The surest first: some may lie in the wrong folder.",
            pictures(wrong_answers(result), True),
        ),
        Gallery("Left at the first exit", "The easy ones: right, and with the least work.", pictures(early, False)),
        Gallery("Went all the way", "Right only at full depth: the hard ones.", pictures(late[::-1], False)),
    ]
    return [gallery for gallery in galleries if gallery.pictures]

"""The figure of the README: an easy photograph leaves at the first exit, a hard one goes on.

    python scripts/readme_figure.py docs/plots

It runs the embedded model on two sample photographs, forced to every exit in turn, and draws what each exit would have
said beside what was run. The milliseconds are those that `pi-dynn benchmark --predict pi4` prints. Needs the extra
[plots], and Linux on x86-64 for the emulated core.
"""

from pathlib import Path

import click
from PIL import Image

from pi_dynn.cli.options import sample_folder
from pi_dynn.figures import new_figure, write_figure
from pi_dynn.latency.boards import board_model, predict_exits
from pi_dynn.latency.emulated import count_exits
from pi_dynn.runtime.session import Session
from pi_dynn.text import label_words, milliseconds, percent

PHOTOGRAPHS = ("baseballdiamond06.jpg", "buildings01.jpg")
RUN, LEFT, NOT_RUN = "#9ecae1", "#08519c", "#e8e8e8"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Write easy_and_hard.png into FOLDER."""
    session = Session(threads=1)
    macs, board = session.manifest.macs, board_model("pi4")
    counts = count_exits(session.bundle, board.board.core, lambda text: click.echo(text, err=True))
    predicted = predict_exits(board, counts, [0] * len(macs))
    figure, axes = new_figure(columns=4, width=9.0, height=3.2)
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.08)
    for number, name in enumerate(PHOTOGRAPHS):
        picture, ladder = axes[2 * number : 2 * number + 2]
        path = sample_folder() / name
        x = session.preprocess(path)
        answer = session.classify(x)
        picture.imshow(Image.open(path))
        picture.set_axis_off()
        cost = percent(macs[answer.exit_index] / macs[-1], 0)
        latency = milliseconds(predicted.exits[answer.exit_index].latency_s)
        picture.set_title(
            f"{label_words(answer.label)} {percent(answer.probability, 0)}\n{cost} of the network\n"
            f"{latency} on a Pi 4, predicted",
            fontsize=9,
        )
        for k in range(session.exits + 1):
            run, left = k <= answer.exit_index, k == answer.exit_index
            one = session.classify(x, session.forced_thresholds(k))
            ladder.barh(k, one.score if run else 1.0, color=LEFT if left else RUN if run else NOT_RUN)
            text = f"{label_words(one.label)} {percent(one.probability, 0)}" if run else "not run"
            ladder.text(0.03, k, text, va="center", fontsize=8, color="white" if left else "black")
        ladder.axvline(session.resolve_thresholds(None)[0], color="black", linewidth=0.8, linestyle="--")
        blocks = [f"block {block}" for block in session.manifest.blocks]
        ladder.set_yticks(range(len(blocks)), blocks, fontsize=8)
        ladder.set(xlim=(0, 1), ylim=(len(blocks) - 0.5, -0.5))
        ladder.set_xlabel("score; dashed: sure enough", fontsize=8)
        ladder.tick_params(labelsize=8)
        for side in ("top", "right"):
            ladder.spines[side].set_visible(False)
    write_figure(figure, folder / "easy_and_hard.png")


if __name__ == "__main__":
    main()

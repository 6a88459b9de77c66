"""Loss and held-out accuracy by epoch, as one picture. Needs matplotlib, the extra [plots]."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pi_dynn.figures import new_figure, write_figure


def training_figure(log: Sequence[Mapping[str, str]], held_out: str):
    """The figure of a log with the columns phase, epoch, loss and `held_out`, an accuracy in 0..1: a row per epoch."""
    figure, (axes,) = new_figure(width=8.0)
    right = axes.twinx()
    epochs, ends = epochs_of(log)
    rights = right.plot(
        epochs, [100 * float(row[held_out]) for row in log], color="tab:green", lw=1.5, marker=".", ms=3
    )
    for start, (phase, end) in zip([0, *ends.values()], ends.items(), strict=False):
        rows = [i for i, row in enumerate(log) if row["phase"] == phase]  # losses of two phases do not compare
        losses = axes.plot([epochs[i] for i in rows], [float(log[i]["loss"]) for i in rows], "b.-", lw=1, ms=3)
        axes.axvline(end + 0.5, color="0.8", lw=1, zorder=0)
        axes.text(start + 1, 1.0, phase, rotation=90, va="top", fontsize=7, transform=axes.get_xaxis_transform())
    axes.set(xlabel="epoch", title="Training", xlim=(0, max(epochs) + 1))
    axes.set_ylabel("loss", color="b")
    right.set_ylabel("held-out accuracy (%)", color="tab:green")
    axes.legend([*losses, *rights], ["loss of the phase", "accuracy at full depth"], fontsize=8, loc="lower center")
    return figure


def epochs_of(log: Sequence[Mapping[str, str]]) -> tuple[list[int], dict[str, int]]:
    """For every row its epoch counted through all phases, and for every phase the last one of its epochs."""
    epochs, ends, before = [], {}, 0
    for row in log:
        if row["phase"] not in ends:
            before = max(ends.values(), default=0)
        epochs.append(before + int(row["epoch"]))
        ends[row["phase"]] = epochs[-1]
    return epochs, ends


def save_training_curves(log: Sequence[Mapping[str, str]], held_out: str, path: Path) -> None:
    """Write the figure of a log to `path`, as the kind its suffix says."""
    write_figure(training_figure(log, held_out), path)

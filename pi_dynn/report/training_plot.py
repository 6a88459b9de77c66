"""Loss and held-out accuracy by epoch, as one picture. Needs matplotlib, the extra [plots]."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pi_dynn.report.figures import new_figure, write_figure


def training_figure(log: Sequence[Mapping[str, str]], held_out: str):
    """The figure of a log with the columns phase, loss and `held_out`, an accuracy in 0..1: a row per epoch."""
    figure, (axes,) = new_figure(width=8.0)
    right = axes.twinx()
    losses = axes.plot(range(1, len(log) + 1), [float(row["loss"]) for row in log], color="tab:blue", lw=1)
    rights = right.plot(range(1, len(log) + 1), [100 * float(row[held_out]) for row in log], color="tab:green", lw=1.5)
    for epoch, (before, row) in enumerate(zip(log, log[1:], strict=False), start=1):
        if row["phase"] != before["phase"]:
            axes.axvline(epoch + 0.5, color="0.8", lw=1, zorder=0)
    for phase in dict.fromkeys(row["phase"] for row in log):
        first = next(i for i, row in enumerate(log) if row["phase"] == phase)
        axes.text(first + 1, 1.0, phase, rotation=90, va="top", fontsize=7, transform=axes.get_xaxis_transform())
    axes.set(xlabel="epoch", title="Training")
    axes.set_ylabel("loss", color="tab:blue")
    right.set_ylabel("held-out accuracy (%)", color="tab:green")
    axes.legend([*losses, *rights], ["loss of the phase", "accuracy at full depth"], fontsize=8, loc="lower right")
    return figure


def save_training_curves(log: Sequence[Mapping[str, str]], held_out: str, path: Path) -> None:
    """Write the figure of a log to `path`, as the kind its suffix says."""
    write_figure(training_figure(log, held_out), path)

"""`evaluate` in text."""

from pi_dynn.records import Evaluation
from pi_dynn.report.text import mega, percent, table


def evaluation_text(result: Evaluation) -> str:
    """The published exit table, then accuracy and cost beside those of full depth."""
    rows = [
        (
            f"layer {row.block_index}",
            str(row.count),
            percent(row.rate, 2),
            percent(row.accuracy, 2),
            mega(row.macs),
        )
        for row in result.exits
    ]
    exits = table(("exit", "images", "exit rate", "exit acc", "multiply-adds"), rows)
    saved = 1 - result.mean_macs / result.full_depth_macs
    lost = 100 * (result.full_depth_acc1 - result.acc1)
    failed = f", {result.failed} could not be read" if result.failed else ""
    return "\n".join(
        (
            f"{result.dataset}: {result.images} images{failed}  ({result.precision}, {result.engine})",
            exits,
            f"* acc@1 {100 * result.acc1:.3f}  acc@5 {100 * result.acc5:.3f}  loss {result.loss:.3f}",
            f"full depth acc@1 {100 * result.full_depth_acc1:.3f}  exits cost {lost:+.3f} points",
            f"mean multiply-adds {mega(result.mean_macs)} of {mega(result.full_depth_macs)}  saved {percent(saved)}",
        )
    )

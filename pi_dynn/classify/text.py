"""The results of `classify` and `watch` as text, JSON and CSV."""

from collections.abc import Sequence
from typing import Any

from pi_dynn.classify.records import ClassifySummary, WatchSummary
from pi_dynn.errors import InputError
from pi_dynn.records import Prediction
from pi_dynn.text import columns, counted, label_words, milliseconds, percent, shown, significant

CSV_FIELDS = (
    *("path", "label", "class_index", "probability", "exit_index", "block_index", "score", "latency_s", "error"),
    *("accepted", "similarity"),
)


NONE = "none of these"
_WIDEST_LABEL = 30


def told_label(answer: Prediction) -> str:
    """The label of an answer, or that it is none of them."""
    return answer.label if answer.accepted else NONE


def label_width(labels: Sequence[str]) -> int:
    """The width of the column of labels."""
    return max(len(NONE), *(min(len(shown(label_words(label))), _WIDEST_LABEL) for label in labels))


_NARROW = 100  # columns of a terminal where names of files have more use than the numbers of blocks


def prediction_line(path: str, answer: Prediction, exits: int, width: int = len(NONE)) -> str:
    """One image as a line: label, probability, exit, time of the network, file; `width` is that of the labels.

    A narrow terminal shows exits without their blocks, and the nearest class below "none of these".
    """
    several = len(answer.top) > 1
    width += 2 if several else 0  # the other classes are indented
    nearest = shown(label_words(answer.label))
    label, probability, remark = nearest, percent(answer.probability), ""
    if not answer.accepted:
        label, probability, remark = NONE, "-", f"  (nearest: {nearest})"
    left = f"exit {answer.exit_index + 1} of {exits}"
    if (columns() or _NARROW) < _NARROW:
        remark = remark and f"\n{remark}"
    else:
        left = f"{left} (block {answer.block_index})".ljust(len("exit 1 of 1 (block 11)"))
    line = f"{label:<{width}}  {probability:>7}  {left}  "
    line += f"{milliseconds(answer.latency_s):>8}  {shown(path)}{remark}"
    others = answer.top[1:] if answer.accepted else answer.top
    more = (f"\n  {shown(label_words(label)):<{width - 2}}  {percent(probability):>7}" for label, probability in others)
    return line + "".join(more if several else ())


def prediction_object(path: str, answer: Prediction) -> dict[str, Any]:
    """One image as a JSON object; with `top` only if it holds more than one class."""
    fields = answer.to_dict()
    if len(answer.top) < 2:
        del fields["top"]
    return {"path": path} | fields


def csv_row(path: str, answer: Prediction | InputError) -> dict[str, Any]:
    """One image as a CSV row."""
    fields, error = (answer.to_dict(), "") if isinstance(answer, Prediction) else ({}, " ".join(str(answer).split()))
    return {name: fields.get(name, "") for name in CSV_FIELDS} | {"path": path, "error": error}


def summary_line(summary: ClassifySummary) -> str:
    """The run in two lines: throughput with decoding and the time of the network, and the share of images per exit."""
    if summary.images == 0:
        return f"0 images classified, {summary.failed} failed"
    shares = ", ".join(
        f"block {block} {percent(count / summary.images, 0)}"
        for block, count in zip(summary.exit_blocks, summary.exit_counts, strict=True)
        if count
    )
    failed = f", {summary.failed} failed" if summary.failed else ""
    images, threads = counted(summary.images, "image"), counted(summary.threads, "thread")
    mean = milliseconds(summary.mean_latency_s or 0.0)
    return (
        f"{images}{failed}: {significant(summary.images_per_s)} a second with decoding, {mean} each in the network "
        f"({summary.engine}, {threads})\nleft after {shares}"
    )


def frame_object(path: str, frame: int, time: str, age_s: float, answer: Prediction | Exception) -> dict[str, Any]:
    """One frame as a JSON object: its number, the time of the answer (UTC), the age of the frame, and the answer.

    For a frame without an answer, `error` says why.
    """
    if isinstance(answer, Prediction):
        fields = prediction_object(path, answer)
    else:
        fields = {"path": path, "error": " ".join(str(answer).split())}
    return fields | {"frame": frame, "time": time, "age_s": age_s}


def watch_line(summary: WatchSummary) -> str:
    """The watch in one line, as a log has it."""
    line = f"{'; '.join(summary_line(summary).splitlines())}; {summary.dropped} of {summary.frames} frames dropped"
    if summary.skipped or summary.saved_energy is not None:
        line += f", {summary.skipped} skipped"
    if summary.saved_energy is not None:
        line += f" (saves {significant(summary.saved_energy.net_j)} J, {summary.saved_energy.meter_label})"
    if summary.spent_energy is not None:
        spent = significant(summary.spent_energy.net_j)
        line += f", {spent} J spent ({summary.spent_energy.meter_label}), {counted(summary.unpaid, 'frame')} unpaid"
    for number, what, how in (
        (summary.held_back, "answer", " held back"),
        (summary.reconnects, "reconnect", ""),
        (summary.swaps, "bundle change", ""),
        (summary.refused_swaps, "bundle change", " refused"),
        (summary.unsure_saved, "unsure picture", " saved"),
        (summary.unsure_lost, "unsure picture", " lost"),
    ):
        if number:
            line += f", {counted(number, what)}{how}"
    if summary.published is not None:
        line += f", {summary.published} messages published, {summary.unpublished} not"
    return line

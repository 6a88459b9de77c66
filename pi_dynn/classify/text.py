"""The results of `classify` and `watch` as text, JSON and CSV."""

from typing import Any

from pi_dynn.classify.records import ClassifySummary, WatchSummary
from pi_dynn.records import Prediction
from pi_dynn.text import milliseconds, percent, shown

CSV_FIELDS = (
    *("path", "label", "class_index", "probability", "exit_index", "block_index", "score", "latency_s", "error"),
    *("accepted", "similarity"),
)


def prediction_line(path: str, answer: Prediction, exits: int) -> str:
    """One image as a line."""
    exit_text = f"exit {answer.exit_index + 1} of {exits} (block {answer.block_index})"
    label = f"{shown(answer.label)} {percent(answer.probability)}"
    if not answer.accepted:
        label = f"none of these (nearest: {shown(answer.label)})"
    line = f"{shown(path)}  {label}  {exit_text}  {milliseconds(answer.latency_s)}"
    others = "".join(f"\n    {shown(label)} {percent(probability)}" for label, probability in answer.top[1:])
    return line + others


def prediction_object(path: str, answer: Prediction) -> dict[str, Any]:
    """One image as a JSON object; with `top` only if it holds more than one class."""
    fields = answer.to_dict()
    if len(answer.top) < 2:
        del fields["top"]
    return {"path": path} | fields


def csv_row(path: str, answer: Prediction | None, error: str = "") -> dict[str, Any]:
    """One image as a CSV row."""
    fields = {} if answer is None else answer.to_dict()
    return {name: fields.get(name, "") for name in CSV_FIELDS} | {"path": path, "error": error}


def summary_line(summary: ClassifySummary) -> str:
    """The run in one line: throughput, latency, and the share of images per exit."""
    if summary.images == 0:
        return f"0 images classified, {summary.failed} failed"
    shares = "  ".join(
        f"block {block}: {percent(count / summary.images, 0)}"
        for block, count in zip(summary.exit_blocks, summary.exit_counts, strict=True)
    )
    failed = f", {summary.failed} failed" if summary.failed else ""
    return (
        f"{summary.images} images{failed}  {summary.images_per_s:.1f} images/s  "
        f"mean {milliseconds(summary.mean_latency_s or 0.0)}  exits {shares}  "
        f"({summary.engine}, {summary.threads} threads)"
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
    """The watch in one line."""
    line = f"{summary_line(summary)}  {summary.dropped} of {summary.frames} frames dropped"
    if summary.reconnects:
        line += f", {summary.reconnects} reconnects"
    if summary.published is not None:
        line += f", {summary.published} messages published, {summary.unpublished} not"
    return line

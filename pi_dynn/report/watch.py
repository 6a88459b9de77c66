"""`watch` in JSON and text."""

from pi_dynn.records import Prediction
from pi_dynn.report.classify import prediction_object, summary_line
from pi_dynn.watch_records import WatchSummary


def frame_object(path: str, frame: int, time: str, age_s: float, answer: Prediction | Exception) -> dict:
    """One frame as a JSON object: its number, when it was answered (UTC), how old it was then, and the answer.

    Of a frame that could not be answered, `error` says why.
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

"""A bundle in text."""

from typing import Any

from pi_dynn.runtime.records import BundleInfo, CalibrationInfo, ExitInfo
from pi_dynn.text import cost_text, counted, folded, mega, percent, significant, table, threshold_text

_COLUMN = 19  # where values begin
_MAX_LABELS = 60


def info_text(info: BundleInfo) -> str:
    """What a bundle is: a line per property, the table of its exits, and the records found for it."""
    pixels = info.preprocess.get("size", "?")
    parameters = "" if info.parameters is None else f", {info.parameters:,} parameters"
    packed = f", packed for {info.packed_engine}" if info.packed_engine else ""
    lines = [
        f"{info.file}  {significant(info.size_bytes / 1e6)} MB",
        _property("network", f"{info.model}, {counted(info.depth, 'block')}{parameters}, images of {pixels} px"),
        _property("precision", f"{info.precision}{packed} ({info.format})"),
        _property("classes", _labels(info.labels)),
        *(() if info.rejection is None else (_property("none of these", _rejection(info.rejection)),)),
        _property("trained", _training(info)),
        _property("licence", info.licence or "not in the bundle"),
        *(_property(name.replace("_", " "), _plain(value)) for name, value in info.notes.items()),
        _property("made by", f"pi_dynn {info.pi_dynn_version}, torch {info.torch_version}"),
        _property("sha256", info.sha256),
        "",
        _exits(info.exits),
        "",
        *map(_calibration, info.calibration),
    ]
    if not info.calibration:
        lines.append(folded("no calibration record found for it; `pi-dynn calibrate DATASET -o RECORD` makes one"))
    return "\n".join(lines)


def _property(name: str, value: str) -> str:
    lead = f"{name:<{_COLUMN - 1}} "
    line = lead + (value or "-")
    return folded(line, _COLUMN) if " " in value else line  # a hash stays in one piece


def _labels(labels: list[str]) -> str:
    more = len(labels) - _MAX_LABELS
    shown = ", ".join(labels[:_MAX_LABELS])
    return f"{len(labels):,}: {shown}" + (f", and {more:,} more (--json has all)" if more > 0 else "")


def _rejection(share: float) -> str:
    return f"answered for images unlike its classes, and for {percent(share, 0)} or fewer of those of its classes"


def _training(info: BundleInfo) -> str:
    stages = (
        stage.stage
        + (f" ({stage.runs} runs)" if stage.runs > 1 else "")
        + (f" on {', '.join(stage.data)}" if stage.data else "")
        for stage in info.training
    )
    return "; ".join(stages) or "not in the bundle"


def _plain(value: Any) -> str:
    """A value from JSON in words."""
    if isinstance(value, dict):
        return "; ".join(f"{str(name).replace('_', ' ')} {_plain(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else "none" if value is None else str(value)


def _exits(exits: list[ExitInfo]) -> str:
    full = exits[-1].macs
    rows = [
        (
            f"exit {one.exit_index + 1} of {len(exits)}",
            f"block {one.block_index}",
            "-" if one.threshold is None else threshold_text(one.threshold),
            mega(one.macs),
            percent(one.macs / full if full else None, 0),
        )
        for one in exits
    ]
    return table(("exit", "after", "threshold", "multiply-adds", "of all"), rows, left=2)


def _calibration(one: CalibrationInfo) -> str:
    return folded(
        f"record {one.file}: rule {one.rule}, score {one.score}, accuracy {percent(one.accuracy, 2)} at a mean cost of "
        f"{cost_text(one.mean_cost, one.cost_unit)}, chosen by and counted on {counted(one.images, 'image')} of "
        f"{one.dataset}"
    )

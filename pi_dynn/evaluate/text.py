"""The results of `evaluate` and `calibrate` as text and Markdown."""

import struct
from collections.abc import Sequence

from pi_dynn.calibrate.drift import Drift
from pi_dynn.calibrate.records import CalibrationRecord, ExitReliability, OperatingPoint, Promise, RuleResult
from pi_dynn.evaluate.records import ClassResult, ConditionResult, CorruptionSummary, Evaluation, RobustnessResult
from pi_dynn.text import cost_text, counted, mega, percent, table, threshold_text


def points_table(points: Sequence[OperatingPoint], exits: Sequence[int], unit: str, markdown: bool = False) -> str:
    """One line per point: exit rate and accuracy of every exit, then the expected accuracy and cost."""
    name = next(iter(points[0].settings), "point")
    headers = (name, *(f"block {block}" for block in exits), "accuracy", "mean cost")
    rows = [
        (
            f"{point.settings.get(name, number):g}",
            *(
                f"{percent(rate)} / {percent(accuracy)}"
                for rate, accuracy in zip(point.exit_rates, point.exit_accuracies, strict=True)
            ),
            percent(point.accuracy, 2),
            cost_text(point.mean_cost, unit),
        )
        for number, point in enumerate(points)
    ]
    return table(headers, rows, markdown=markdown)


def record_text(record: CalibrationRecord, point: OperatingPoint, before: OperatingPoint | None = None) -> str:
    """The chosen thresholds: a line per exit, accuracy and cost beside full depth's, and any promise."""
    part = f", part {record.part}" if record.part else ""
    rows = [
        (
            f"block {block}",
            "-" if k == len(record.thresholds) else threshold_text(record.thresholds[k]),
            percent(rate, 2),
            percent(accuracy, 2),
            cost_text(cost, record.cost_unit),
        )
        for k, (block, rate, accuracy, cost) in enumerate(
            zip(record.exits, point.exit_rates, point.exit_accuracies, record.costs, strict=True)
        )
    ]
    lines = [
        f"{record.dataset}{part}: {counted(record.images, 'image')}  (rule {record.rule}, score {record.score}"
        f"{f', costs: {record.cost_source}' if record.cost_source else ''})",
        table(("exit", "threshold", "exit rate", "exit acc", "cost"), rows),
        _outcome_line("", point, record),
    ]
    if before is not None:
        lines.insert(2, _outcome_line("before pruning: ", before, record))
    if record.promise is not None:
        lines.append(_promise_line(record.promise))
    return "\n".join(lines)


def _outcome_line(lead: str, point: OperatingPoint, record: CalibrationRecord) -> str:
    full, unit = record.costs[-1], record.cost_unit
    return (
        f"{lead}accuracy {percent(point.accuracy, 2)} of {percent(record.full_depth_accuracy, 2)} at full depth  "
        f"mean cost {cost_text(point.mean_cost, unit)} of {cost_text(full, unit)}  "
        f"saved {percent(1 - point.mean_cost / full)}"
    )


def _promise_line(promise: Promise) -> str:
    how = "for any distribution" if promise.corrected else "in the normal limit"
    return (
        f"with probability {percent(1 - promise.delta, 0)} at most {100 * promise.epsilon:g} points are lost on new "
        f"data ({promise.risk}, {how}; bound reached {100 * promise.bound:.3f} points)"
    )


def empty_exit_notes(record: CalibrationRecord) -> list[str]:
    """One line for each early exit that no image left at."""
    return [
        f"none of {counted(record.images, 'image')} left at the exit after block {block}: its accuracy is not known"
        for block, rate in zip(record.exits[:-1], record.exit_rates[:-1], strict=True)
        if rate == 0.0
    ]


def drift_line(drift: Drift, exits: Sequence[int]) -> str:
    """A drift in one line: the exit shares of the last images, and those of the record."""
    shares = "  ".join(
        f"block {block}: {percent(now, 0)} ({percent(then, 0)})"
        for block, now, then in zip(exits, drift.shares, drift.expected, strict=True)
    )
    return (
        f"the last {drift.images} images left at other exits than those of the record (in brackets): {shares}; "
        "accuracy may differ, calibrate on such images"
    )


def move_line(point: OperatingPoint, unit: str) -> str:
    """A move along the accuracy-cost curve in one line."""
    cost, accuracy = cost_text(point.mean_cost, unit), percent(point.accuracy)
    return f"thresholds moved to a mean cost of {cost}, with an accuracy of {accuracy} on record"


def comparison_table(results: Sequence[RuleResult], markdown: bool = False) -> str:
    """One line per rule and thresholds: accuracy, mean cost, points gained on the sweep at that cost, and exits.

    Settings of a rule that lead to the same thresholds share a line; a star marks the cheapest that is as right as full
    depth.
    """
    lines: dict[tuple[str, tuple[float, ...]], list[RuleResult]] = {}
    for result in results:
        lines.setdefault((result.rule, tuple(result.point.thresholds)), []).append(result)
    best = recommended(results)
    rows = []
    for same in lines.values():
        first, last = same[0], same[-1]
        last_setting = last.setting.removeprefix(f"{first.setting.rpartition(' ')[0]} ")
        setting = first.setting if len(same) == 1 else f"{first.setting} .. {last_setting}"
        rows.append(
            (
                f"* {first.rule}" if best in same else first.rule,
                setting,
                percent(first.point.accuracy, 2),
                cost_text(first.point.mean_cost, first.cost_unit),
                f"{100 * first.gain:+.2f}",
                " ".join(f"{100 * rate:.0f}" for rate in first.point.exit_rates),
            )
        )
    headers = ("rule", "setting", "accuracy", "mean cost", "gain", "exits in %")
    return table(headers, rows, left=2, markdown=markdown)


def recommended(results: Sequence[RuleResult]) -> RuleResult | None:
    """The cheapest result that is at least as right as the first, which is full depth; None for full depth alone."""
    full, others = results[0].point, results[1:]
    enough = [result for result in others if result.point.accuracy >= full.accuracy]
    return min(enough, key=lambda result: (result.point.mean_cost, -result.point.accuracy), default=None)


def comparison_text(results: Sequence[RuleResult], images: int, chosen_on: int, part: str) -> str:
    """The comparison, with the images it was made on."""
    return "\n".join(
        (
            f"rules at equal cost, chosen on {counted(chosen_on, 'image')} of part {part}; "
            "* the cheapest as right as full depth:",
            comparison_table(results),
            f"gain: points of accuracy beyond the sweep, one threshold for all exits, at the same cost; one of these "
            f"{counted(images, 'image')} is {100 / images:.2f} points",
        )
    )


def reliability_table(rows: Sequence[ExitReliability], markdown: bool = False) -> str:
    """Temperature and expected calibration error of every exit, before and after."""
    cells = [
        (
            f"block {row.block_index}",
            f"{row.temperature:.3f}",
            percent(row.error_before, 2),
            percent(row.error_after, 2),
        )
        for row in rows
    ]
    headers = ("exit", "temperature", "calibration error", "after scaling")
    return table(headers, cells, markdown=markdown)


def evaluation_text(result: Evaluation, markdown: bool = False) -> str:
    """The published exit table, then accuracy and cost beside those of full depth; as a list in Markdown."""
    rows = [
        (
            f"block {row.block_index}",
            str(row.count),
            percent(row.rate, 2),
            percent(row.accuracy, 2),
            mega(row.macs),
        )
        for row in result.exits
    ]
    exits = table(("exit", "images", "exit rate", "exit acc", "multiply-adds"), rows, markdown=markdown)
    saved = 1 - result.mean_macs / result.full_depth_macs
    lost = 100 * (result.full_depth_acc1 - result.acc1)
    change = f"exits gain {-lost:.3f} points" if lost < 0 else f"exits cost {lost:.3f} points"
    failed = f", {result.failed} could not be read" if result.failed else ""
    title = f"{result.dataset}: {counted(result.images, 'image')}{failed}  ({result.precision}, {result.engine})"
    lines = [
        f"acc@1 {100 * result.acc1:.3f}  acc@5 {100 * result.acc5:.3f}  loss {result.loss:.3f}",
        f"full depth acc@1 {100 * result.full_depth_acc1:.3f}  {change}",
        f"mean multiply-adds {mega(result.mean_macs)} of {mega(result.full_depth_macs)}  saved {percent(saved)}",
    ]
    if result.rejected is not None:
        lines.append(f"none of these: {percent(result.rejected)} of the images, counted above by their nearest class")
    if markdown:
        return "\n\n".join((title, exits, "\n".join(f"- {line}" for line in lines)))
    return "\n".join((title, exits, f"* {lines[0]}", *lines[1:]))


def evaluation_log(result: Evaluation) -> str:
    """The lines of the published logs: accuracy, images and share of every block in percent, then the accuracies.

    Source: zhaoweizhao/EdgeComputing, 2024.11.15.md.
    """
    rows = {row.block_index: row for row in result.exits}
    blocks = [rows.get(block) for block in range(result.exits[-1].block_index + 1)]
    counts = [row.count if row else 0 for row in blocks]
    right = [round(row.count * (row.accuracy or 0.0)) if row else 0 for row in blocks]
    return "\n".join(
        (
            "EXIT CORRECT RATE:",
            str([100 * (hits / count) if count else 0.0 for hits, count in zip(right, counts, strict=True)]),
            str(counts),
            str([100 * (count / result.images) for count in counts]),
            f"* Acc@1 {100 * result.acc1:.3f} Acc@5 {100 * result.acc5:.3f} loss {result.loss:.3f}",
        )
    )


def sweep_log(points: Sequence[OperatingPoint], exits: Sequence[int], flops: Sequence[float], images: int) -> str:
    """A sweep as the published logs have it; `flops` (K,) are those of an answer at each of the blocks `exits`.

    The logs were printed in float32, and called their millions "G"; here G are billions.

    Source: zhaoweizhao/EdgeComputing, new_GFNet_dynn.md.
    """
    lines = []
    for point in points:
        counts = [round(rate * images) for rate in point.exit_rates]
        right = [round(count * (value or 0.0)) for count, value in zip(counts, point.exit_accuracies, strict=True)]
        stars = "*" * 16 + f"{point.settings['threshold']:g}" + "*" * 16
        accuracy = sum(right) / images * 100
        cost = _float32(sum(count * cost for count, cost in zip(counts, flops, strict=True)) / images / 1e9)
        lines += [str(images), str(sum(right)), stars]
        left = dict(zip(exits, zip(counts, right, strict=True), strict=True))
        for block in range(exits[-1] + 1):
            count, hits = left.get(block, (0, 0))
            shares = f"{_float32(100 * count / images)}/{_float32(100 * hits / count)}" if count else "0.0/0"
            lines.append(f"Exiting Layer{block}:[{shares}]")
        lines += [f"acc_val={accuracy},total_GFLOPs={cost}G", stars]
        lines.append(f"threshold:{point.settings['threshold']:g}-->expected_acc:{accuracy}<=>expected_GFLOPs{cost}G")
    return "\n".join(lines)


def _float32(value: float) -> float:
    """A number as float32 has it."""
    number: float = struct.unpack("f", struct.pack("f", value))[0]
    return number


_MAX_COLUMNS = 30  # classes whose confusion matrix a wide terminal still holds


def class_text(result: ClassResult) -> str:
    """A line for each class that images are of, and the confusion matrix, zeros as dots."""
    rows = [
        (
            row.label,
            str(row.images),
            str(row.right),
            percent(row.accuracy),
            percent(row.precision),
            "-" if row.rejected is None else str(row.rejected),
            f"{row.taken_for} ({row.taken_count})" if row.taken_for else "-",
        )
        for row in result.classes
        if row.images
    ]
    headers = ("class", "images", "right", "accuracy", "precision", "none of these", "most often taken for")
    return f"{table(headers, rows)}\n\n{confusion_table(result)}"


def confusion_table(result: ClassResult) -> str:
    """Images by true class (rows) and answer (columns, by number), of the classes that occur in either."""
    matrix = result.matrix
    used = [k for k, row in enumerate(matrix) if any(row) or any(other[k] for other in matrix)]
    if len(used) > _MAX_COLUMNS:
        return f"the confusion matrix of {len(used)} classes is too wide for text: --plot draws it, --json has it"
    numbers = {k: str(place + 1) for place, k in enumerate(used)}
    headers = ("", "true class, answers by number", *(numbers[k] for k in used))
    rows = [
        (numbers[k], result.labels[k], *(str(matrix[k][other]) if matrix[k][other] else "." for other in used))
        for k in used
    ]
    return table(headers, rows, left=2)


SURE = 1e-3  # a p-value below which a shift of the exits is reported


def conditions_table(result: RobustnessResult, markdown: bool = False) -> str:
    """One line per condition: accuracy with exits and at full depth, mean cost and depth, and the exits."""
    headers = ("images", "severity", "accuracy", "full depth", "mean cost", "blocks", "exits in %", "drift p")
    rows = [_row(one) for one in result.conditions]
    return table(headers, rows, left=1, markdown=markdown)


def _row(one: ConditionResult) -> tuple[str, ...]:
    return (
        one.corruption or "clean",
        "-" if one.severity is None else str(one.severity),
        percent(one.acc1, 2),
        percent(one.full_depth_acc1, 2),
        mega(one.mean_macs),
        f"{one.mean_depth:.2f}",
        " ".join(f"{100 * rate:.0f}" for rate in one.exit_rates),
        "-" if one.p_value is None else f"{one.p_value:.1e}" + (" *" if one.p_value < SURE else ""),
    )


def robustness_text(result: RobustnessResult) -> str:
    """The table, the mean corruption errors, and the meaning of a star."""
    lines = [f"{result.dataset}: {counted(result.conditions[0].images, 'image')} per line", conditions_table(result)]
    summary = result.summary
    if summary is not None:
        lines.append(
            f"mean corruption error {percent(summary.mean_error, 2)} with exits, "
            f"{percent(summary.full_depth_mean_error, 2)} at full depth"
        )
        if summary.beyond_clean is not None and summary.full_depth_beyond_clean is not None:
            lines.append(
                f"beyond the clean error {100 * summary.beyond_clean:+.2f} points with exits, "
                f"{100 * summary.full_depth_beyond_clean:+.2f} at full depth"
            )
        lines.append(_relative_line(summary))
    if any(one.p_value is not None and one.p_value < SURE for one in result.conditions):
        lines.append(f"* images leave at other exits than clean ones: p-value below {SURE:g}")
    return "\n".join(lines)


def _relative_line(summary: CorruptionSummary) -> str:
    if summary.relative is None:
        return "not relative to AlexNet's errors, which are for the whole of ImageNet-C only"
    return (
        f"mCE {percent(summary.relative, 2)} with exits, {percent(summary.full_depth_relative, 2)} at full depth "
        "(relative to AlexNet)"
    )

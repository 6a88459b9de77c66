"""The lines of the published logs, digit by digit where they were printed."""

from benchmarks.published.op_counter import published_table
from pi_dynn.calibrate.records import ExitRow, OperatingPoint
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.evaluate.text import evaluation_log, sweep_log
from pi_dynn.models.presets import preset_named
from tests.golden import assert_golden


def evaluation(name: str, loss: float) -> Evaluation:
    """The published evaluation of a preset."""
    preset = preset_named(name)
    images, blocks = sum(preset.left), [*preset.exits, 11]
    rows = [
        ExitRow(k, block, left, left / images, right / left, 1)
        for k, (block, left, right) in enumerate(zip(blocks, preset.left, preset.right, strict=True))
    ]
    return Evaluation("", images, 0, sum(preset.right) / images, 1.0, loss, 1.0, 1.0, 1, rows, [], "", "", "")


def test_an_evaluation_has_the_published_lines():
    logs = [evaluation_log(evaluation("nasc-distil-dynn", 0.115)), evaluation_log(evaluation("nasc-dynn", 0.182))]
    assert_golden("published_evaluate_log.txt", "\n".join(logs))


def test_a_sweep_has_the_published_lines():
    left = [0, 0, 431, 54, 658, 1936, 762, 1716, 740, 3, 0, 0]
    right = [0, 0, 430, 54, 657, 1917, 750, 1664, 561, 1, 0, 0]
    rates = [count / 6300 for count in left]
    accuracies = [hits / count if count else None for hits, count in zip(right, left, strict=True)]
    point = OperatingPoint([0.55] * 11, sum(right) / 6300, 0.0, rates, accuracies, {"threshold": 0.55})
    # With the operations of the published counter, whose millions the log calls "G": 220.0375.
    counted = [answer.macs for answer in published_table(preset_named("resisc45-dynn").network()).exits]
    assert_golden("published_sweep_log.txt", sweep_log([point], list(range(12)), counted, 6300))

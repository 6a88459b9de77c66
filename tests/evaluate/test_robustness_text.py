"""What `evaluate` prints of corrupted images."""

from pi_dynn.evaluate.records import ConditionResult, CorruptionSummary, RobustnessResult
from pi_dynn.evaluate.text import conditions_table, robustness_text

CLEAN = ConditionResult(None, None, 252, 0, 0.9, 0.91, 1.2e8, 6.6, [0.6, 0.4], None)
FOG = ConditionResult("fog", 5, 252, 0, 0.5, 0.6, 2.1e8, 10.5, [0.1, 0.9], 1e-20)
SUMMARY = CorruptionSummary({"fog": 0.5}, 0.5, 0.4, 0.4, 0.31, None, None)
RESULT = RobustnessResult("ucm", None, [0.9], [2, 11], [CLEAN, FOG], SUMMARY, "ab")


def test_lines_and_what_they_mean():
    lines = robustness_text(RESULT).splitlines()
    assert lines[0] == "ucm: 252 images per line"
    assert " ".join(lines[2].split()) == "clean - 90.00 % 91.00 % 120.0 M 6.60 60 40 -"
    assert " ".join(lines[3].split()) == "fog 5 50.00 % 60.00 % 210.0 M 10.50 10 90 1.0e-20 *"
    assert lines[4] == "mean corruption error 50.00 % with exits, 40.00 % at full depth"
    assert lines[5] == "beyond the clean error +40.00 points with exits, +31.00 at full depth"
    assert "not relative to AlexNet's errors" in lines[6] and lines[7].startswith("* images leave at other exits")


def test_the_published_figure_and_markdown():
    whole = CorruptionSummary({}, 0.5, 0.4, None, None, 0.756, 0.701)
    text = robustness_text(RobustnessResult("c", "imagenet-c", [0.9], [2, 11], [FOG], whole, "ab"))
    assert "mCE 75.60 % with exits, 70.10 % at full depth (relative to AlexNet)" in text
    assert "beyond the clean" not in text
    assert conditions_table(RESULT, markdown=True).splitlines()[1].startswith("| --- | ---: |")

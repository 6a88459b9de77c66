"""The published line profiles beside one of ours."""

import pytest

from benchmarks.published.line_tables import tables
from pi_dynn.latency.records import Profile, ProfileStep


def step(kind, operation, per_hit_s, block=0):
    return ProfileStep(kind, block, 1, per_hit_s, per_hit_s, 0.1, 0, 0, 0, None, operation)


def profile_of(*steps):
    return Profile("gfnet", "0" * 64, "int8", "x86", 1, 1, 1.0, 1.0, (1.0, 1.0), [1], [1], list(steps), None)


def test_shares_are_of_a_block_s_time():
    parts = [("filter", "norm", 1.0), ("filter", "weight", 3.0), ("MLP", "norm", 1.0), ("MLP", "linear 1", 4.0)]
    steps = [step(kind, name, s, block) for block in (0, 1) for kind, name, s in (*parts, ("MLP", "residual", 1.0))]
    lines = tables(profile_of(*steps, step("gate", "softmax", 1.0), step("gate", "entropy", 1.5))).splitlines()
    assert "| gate | 16.9 % | 47.7 % | 48.9 % | 25.0 % |" in lines
    assert "| tokens | 4.7 % | 13.3 % | 13.9 % | - |" in lines
    assert "| filter | 39.7 % | 30.6 % | 30.0 % |" in lines
    assert "| MLP | 34.6 % | 55.0 % | 40.0 % |" in lines


@pytest.mark.parametrize("board", [1, 2, 3])
def test_a_profile_of_whole_steps_has_the_first_table_only(board):
    text = tables(profile_of(step("filter", None, 2.0), step("MLP", None, 2.0), step("patch embedding", None, 1.0)))
    assert "inside a block" not in text
    assert text.splitlines()[2].split("|")[5].strip() == "25.0 %"
    assert text.splitlines()[5].split("|")[1 + board].strip() == "100.0 %"

import pytest

from pi_dynn.errors import ModelError
from pi_dynn.exits.positions import resolve_exits


@pytest.mark.parametrize(
    ("exits", "blocks"),
    [(None, []), ([], []), ("all", [0, 1, 2, 3, 4]), ([0, 4], [0, 4]), ((1, 3), [1, 3]), (range(2), [0, 1])],
)
def test_positions(exits, blocks):
    assert resolve_exits(exits, 6) == blocks


@pytest.mark.parametrize(
    ("exits", "text"),
    [
        ([5], "after block 5: choose from 0..4 (the last block, 5, always answers)"),
        ([6], "after block 6: choose from 0..4"),
        ([-1], "after block -1"),
        ([3, 1], "must rise"),
        ([2, 2], "without repeats"),
        ("every", "exits='every'"),
        ("3,5", "exits='3,5'"),
        ([1.5], "exits=[1.5]"),
        (3, "exits=3"),
    ],
)
def test_impossible_positions_are_refused_in_one_line(exits, text):
    with pytest.raises(ModelError) as caught:
        resolve_exits(exits, 6)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_last_block_that_may_have_an_exit_is_named():
    with pytest.raises(ModelError, match=r"choose from 0\.\.7"):
        resolve_exits([8], 9)

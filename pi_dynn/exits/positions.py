"""The blocks after which a network has exits."""

import operator
from collections.abc import Sequence

from pi_dynn.errors import ModelError


def resolve_exits(exits: Sequence[int] | str | None, depth: int) -> list[int]:
    """Block indices after which a network of `depth` blocks gets an exit.

    `None` means no exits, `"all"` one after every block but the last, whose answer is the final one.

    Raises: ModelError for an index outside 0..depth-2, a repeated or an unsorted one.
    """
    if exits is None:
        return []
    if exits == "all":
        return list(range(depth - 1))
    try:
        blocks = [operator.index(block) for block in exits]  # type: ignore[arg-type]  # a word is refused below
    except TypeError as error:
        raise ModelError(f'exits={exits!r} is not known: give None, "all" or a list of block indices') from error
    for block in blocks:
        if not 0 <= block < depth - 1:
            raise ModelError(
                f"no exit is possible after block {block}: choose from 0..{depth - 2} (the last block, "
                f"{depth - 1}, always answers)"
            )
    if blocks != sorted(set(blocks)):
        raise ModelError(f"exit blocks {blocks} must rise without repeats")
    return blocks

"""Exits of a checkpoint matched to those of a network by the block they follow.

A network numbers its exits 0..K-1 in the order of its exit blocks, so the number alone says nothing: exit 1
of a network with exits after blocks 3, 5, 7, 9 is exit 5 of one with exits everywhere.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from pi_dynn.errors import CheckpointError

EXIT_KEY = re.compile(r"(intermediate_heads|intermediate_heads_dist|intermediate_norms|gates)\.(\d+)\.(.+)")
# GFNet-Dynn of the E3C paper: four exits of a 12-block network, numbered k = (block - 3) / 2.
PUBLISHED_DEPTH = 12
PUBLISHED_BLOCKS = (3, 5, 7, 9)


def exits_by_block(
    state: Mapping[str, Tensor], model: nn.Module, stated: Sequence[int] | None
) -> tuple[dict[str, Tensor], list[str]]:
    """`state` with its exits numbered as in `model`, and the keys of exits that `model` does not have.

    `stated` are the blocks the file's exits follow; without them they are deduced, see `blocks_of_exits`.

    Raises: CheckpointError if they cannot be deduced or do not fit the file.
    """
    matches = {key: match for key in state if (match := EXIT_KEY.fullmatch(key))}
    own_blocks = getattr(model, "exit_blocks", [])
    if not matches or not own_blocks:
        return {key: value for key, value in state.items() if key not in matches}, list(matches)
    numbers = sorted({int(match[2]) for match in matches.values()})
    blocks = blocks_of_exits(numbers, model.depth, own_blocks, stated)
    renumbered, left_out = {}, []
    for key, value in state.items():
        if key not in matches:
            renumbered[key] = value
        elif (block := blocks[int(matches[key][2])]) in own_blocks:
            kind, _, rest = matches[key].groups()
            renumbered[f"{kind}.{own_blocks.index(block)}.{rest}"] = value
        else:
            left_out.append(key)
    return renumbered, left_out


def blocks_of_exits(
    numbers: Sequence[int], depth: int, own_blocks: Sequence[int], stated: Sequence[int] | None
) -> dict[int, int]:
    """The block that each exit number of a file follows.

    In this order: `stated`; with an exit after every block but the last, or with gaps in the numbers, the numbers are
    block indices; four exits of twelve blocks are at the published blocks; as many exits as the network has are at
    its blocks.

    Raises: CheckpointError if none of these holds, or two of them disagree.
    """
    count = len(numbers)
    in_order = list(numbers) == list(range(count))
    if stated is not None:
        if not in_order or len(stated) != count:
            raise CheckpointError(f"file_exits={list(stated)} cannot be right: the file has exits numbered {numbers}")
        return dict(zip(numbers, stated, strict=True))
    if count == depth - 1 or not in_order:
        return {number: number for number in numbers}
    advice = "say after which blocks they stand: file_exits=[...]"
    if count == len(PUBLISHED_BLOCKS) and depth == PUBLISHED_DEPTH:
        if len(own_blocks) == count and tuple(own_blocks) != PUBLISHED_BLOCKS:
            raise CheckpointError(
                f"the file's {count} exits stand after blocks {list(PUBLISHED_BLOCKS)} in published files and after "
                f"{list(own_blocks)} in this network: {advice}"
            )
        return dict(zip(numbers, PUBLISHED_BLOCKS, strict=True))
    if count == len(own_blocks):
        return dict(zip(numbers, own_blocks, strict=True))
    raise CheckpointError(f"the file has {count} exits, this network {len(own_blocks)}: {advice}")

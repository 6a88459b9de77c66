"""Images that belong together: equal files, pictures that look alike, and what file names say.

Shape letters: N images.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_SIDE = 8
MOST_DIFFERENT_BITS = 5  # of the 64 of two pictures that look alike...
MOST_DIFFERENT_TONES = 6.0  # ...whose thumbnails differ by no more, of 255, on average
_CHUNK = 2048  # images compared with all others at once
_LEAST_NAMES = 3  # groups a class must fall into for its file names to tell groups at all
_NUMBERED = re.compile(r"^(.*?)[ _.-]+\D{0,8}\d+$")


def fingerprint(picture: Image.Image) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Whether brightness rises from left to right at 64 places (64,), and a thumbnail of 8 x 8 pixels (192,)."""
    grey = np.asarray(picture.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), dtype=np.int16)
    small = np.asarray(picture.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BOX), dtype=np.uint8)
    return (grey[:, 1:] > grey[:, :-1]).ravel(), small.ravel()


def pairs_alike(bits: NDArray[np.bool_], thumbnails: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of images whose fingerprints, (N, 64) and (N, 192), nearly agree."""
    signs = np.where(bits, 1.0, -1.0).astype(np.float32)
    least = signs.shape[1] - 2 * MOST_DIFFERENT_BITS
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(signs), _CHUNK):
        first, second = np.nonzero(signs[start : start + _CHUNK] @ signs.T >= least)
        ahead = second > first + start
        first, second = first[ahead] + start, second[ahead]
        tones = np.abs(thumbnails[first].astype(np.int16) - thumbnails[second]).mean(axis=1)
        close = tones <= MOST_DIFFERENT_TONES
        pairs += list(zip(first[close].tolist(), second[close].tolist(), strict=True))
    return pairs


def named_groups(names: Sequence[str]) -> list[str | None]:
    """What the paths of images below their class folder say they belong to; None where they say nothing.

    A folder inside the class folder is a group. So is what comes before the last number of a file name, as in
    `street3_0012.jpg`, where a class has several such beginnings with several images each.
    """
    if all(len(PurePath(name).parts) > 1 for name in names):
        return [PurePath(name).parent.as_posix() for name in names]
    beginnings = [match[1] if (match := _NUMBERED.match(PurePath(name).stem)) else None for name in names]
    kinds = {one for one in beginnings if one is not None}
    if None in beginnings or len(kinds) < _LEAST_NAMES or len(names) < 2 * len(kinds):
        return [None] * len(names)
    return list(beginnings)


def joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """`count` images in groups, so that both of every pair are in one; groups and members in order."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs:
        a, b = root(i), root(j)
        parent[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(count):
        groups[root(i)].append(i)
    return list(groups.values())


def grouped_split(
    groups: Sequence[Sequence[int]], labels: Sequence[int], shares: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """Images per named part, each class shared out in the same proportions and every group in one part.

    `shares` gives the share of each part but the last, which takes what remains, and at least one group of every class.
    A part gets the smallest group where all are larger than its share. A group counts for the class of its first image.
    """
    rng = np.random.default_rng(seed)
    *others, rest = shares
    parts: dict[str, list[int]] = {name: [] for name in shares}
    for label in sorted(set(labels)):
        own = [group for group in groups if labels[group[0]] == label]
        size = sum(len(group) for group in own)
        waiting = [own[number] for number in rng.permutation(len(own))]
        for name in others:
            for group in _filling(waiting, max(1, round(shares[name] * size))):
                waiting.remove(group)
                parts[name] += group
        parts[rest] += [i for group in waiting for i in group]
    return {name: sorted(members) for name, members in parts.items()}


def _filling(groups: Sequence[Sequence[int]], room: int) -> list[Sequence[int]]:
    """The first groups that fit into the room for so many images, or the smallest; one is always left over."""
    chosen: list[Sequence[int]] = []
    for group in groups:
        if len(group) <= room and len(chosen) < len(groups) - 1:
            chosen.append(group)
            room -= len(group)
    if not chosen and len(groups) > 1:
        chosen = [min(groups, key=len)]
    return chosen

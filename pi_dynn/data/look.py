"""What a folder of photographs holds, before anything is learned from it."""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pi_dynn.data.decode import decode_image
from pi_dynn.data.folders import ImageFolder
from pi_dynn.data.groups import fingerprint, joined, named_groups, pairs_alike
from pi_dynn.errors import DatasetError, InputError
from pi_dynn.records import Record
from pi_dynn.text import counted

LEAST_OF_A_CLASS = 6  # images: one to choose by, one to report on, four to learn from
FEW_OF_A_CLASS = 30  # fewer than this, and more photographs help more than anything else
UNEVEN = 5.0  # the largest class has so many times the images of the smallest
DRAFT_PX = 64  # enough for a fingerprint


@dataclass(frozen=True)
class LeftOut(Record):
    """An image file that is not used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class FolderLook(Record):
    """What was found in a folder; paths are relative to it.

    `classes` counts the usable images of each class, `shorter_side_px` are the least, the median and the greatest.
    `alike` are groups of images that look nearly the same; `together` all groups of more than one image that have to
    be in one part, those that file names tell included.
    """

    KIND = "folder look"

    root: str
    classes: dict[str, int]
    shorter_side_px: list[int]
    left_out: list[LeftOut]
    copies: int
    alike: list[list[str]]
    together: list[list[str]]
    advice: list[str]


@dataclass(frozen=True)
class LookedAt:
    """The usable images, their groups (indices), and what there is to say about the folder."""

    data: ImageFolder
    groups: list[list[int]]
    look: FolderLook


@dataclass(frozen=True)
class _Seen:
    """One file: its sha256, its shorter side in pixels and its fingerprint; or why it is of no use."""

    sha256: str = ""
    side_px: int = 0
    bits: NDArray[np.bool_] | None = None
    thumbnail: NDArray[np.uint8] | None = None
    reason: str | None = None


def look_at(data: ImageFolder, on_image: Callable[[], None] = lambda: None) -> LookedAt:
    """Read every file once: damaged ones, copies, and equal images of several classes are left out.

    Raises: DatasetError for fewer than two classes, or a class of fewer than LEAST_OF_A_CLASS usable images.
    """
    if len(data.classes) < 2:
        raise DatasetError(
            f"{data.root}: holds one class, {data.classes[0]!r}: to tell apart takes at least two folders of images"
        )
    with ThreadPoolExecutor() as pool:
        seen = []
        for one in pool.map(lambda i: _see(data, i), range(len(data))):
            seen.append(one)
            on_image()
    left_out, copies = _unusable(data, seen)
    used = [i for i in range(len(data)) if i not in left_out]
    kept, sizes = data.subset(used), [seen[i].side_px for i in used]
    counts = {name: kept.labels.count(label) for label, name in enumerate(data.classes)}
    _check_counts(data, counts)
    alike, together = _groups(kept, [seen[i] for i in used])
    paths = [kept.relative(i) for i in range(len(kept))]
    look = FolderLook(
        root=str(data.root),
        classes=counts,
        shorter_side_px=[min(sizes), int(np.median(sizes)), max(sizes)],
        left_out=[LeftOut(data.relative(i), reason) for i, reason in sorted(left_out.items())],
        copies=copies,
        alike=[[paths[i] for i in group] for group in alike if len(group) > 1],
        together=[[paths[i] for i in group] for group in together if len(group) > 1],
        advice=_advice(counts, sizes, len(left_out) - copies),
    )
    return LookedAt(kept, together, look)


def _see(data: ImageFolder, i: int) -> _Seen:
    source, path = data.source(i), data.paths[i]
    if not isinstance(source, Path):  # pixels in memory, which are never damaged
        return _Seen(hashlib.sha256(source.tobytes()).hexdigest(), min(source.size), *fingerprint(source))
    try:
        content = path.read_bytes()
        picture = decode_image(path, draft_px=DRAFT_PX)
    except InputError as error:
        return _Seen(reason=str(error).removeprefix(f"{path}: "))
    except OSError as error:
        return _Seen(reason=f"cannot be read ({error.strerror})")
    return _Seen(hashlib.sha256(content).hexdigest(), _shorter_side(path), *fingerprint(picture))


def _shorter_side(path: object) -> int:
    from PIL import Image

    with Image.open(str(path)) as image:  # reads the header only: the picture above may be a draft of it
        return min(image.size)


def _unusable(data: ImageFolder, seen: list[_Seen]) -> tuple[dict[int, str], int]:
    """Why images are left out, by their number, and how many of them are copies of one that is kept."""
    left_out = {i: one.reason for i, one in enumerate(seen) if one.reason is not None}
    equal: dict[str, list[int]] = defaultdict(list)
    for i, one in enumerate(seen):
        if one.reason is None:
            equal[one.sha256].append(i)
    copies = 0
    for same in equal.values():
        names = sorted({data.classes[data.labels[i]] for i in same})
        if len(names) > 1:
            for i in same:
                other = next(j for j in same if data.labels[j] != data.labels[i])
                left_out[i] = f"the same image is in {' and '.join(map(repr, names))} ({data.relative(other)})"
        else:
            copies += len(same) - 1
            left_out |= {i: f"a copy of {data.relative(same[0])}" for i in same[1:]}
    return left_out, copies


def _check_counts(data: ImageFolder, counts: dict[str, int]) -> None:
    small = {name: count for name, count in counts.items() if count < LEAST_OF_A_CLASS}
    if small:
        name = min(small, key=small.__getitem__)
        more = f" ({len(small)} classes are that small)" if len(small) > 1 else ""
        raise DatasetError(
            f"{data.root}: class {name!r} has {counted(small[name], 'usable image')} and at least "
            f"{LEAST_OF_A_CLASS} are needed{more}: add photographs of it, or move its folder away"
        )


def _groups(data: ImageFolder, seen: list[_Seen]) -> tuple[list[list[int]], list[list[int]]]:
    """Images that look alike, and those together with what file names say, as groups of numbers."""
    bits = np.stack([one.bits for one in seen if one.bits is not None])
    thumbnails = np.stack([one.thumbnail for one in seen if one.thumbnail is not None])
    pairs = pairs_alike(bits, thumbnails)
    alike = joined(len(data), pairs)
    for label, name in enumerate(data.classes):
        members = [i for i, own in enumerate(data.labels) if own == label and isinstance(data.source(i), Path)]
        names = [data.paths[i].relative_to(data.root / name).as_posix() for i in members]
        first: dict[str, int] = {}
        for i, group in zip(members, named_groups(names), strict=True):
            if group is not None:
                pairs.append((first.setdefault(group, i), i))
    return alike, joined(len(data), pairs)


def _advice(counts: dict[str, int], sizes: list[int], unusable: int) -> list[str]:
    """Plain sentences about what would help."""
    lines = []
    few = [name for name, count in counts.items() if count < FEW_OF_A_CLASS]
    if few:
        shown = ", ".join(f"{name} ({counts[name]})" for name in few[:5]) + (", ..." if len(few) > 5 else "")
        lines.append(f"few photographs of {shown}: {FEW_OF_A_CLASS} or more of each class would help most")
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[most] > UNEVEN * counts[least]:
        lines.append(
            f"{most!r} has {counts[most]} images and {least!r} {counts[least]}: the network will answer {most!r} too "
            f"often; add to {least!r}"
        )
    if min(sizes) < DRAFT_PX:
        small = sum(side < DRAFT_PX for side in sizes)
        lines.append(f"{small} images are smaller than {DRAFT_PX} px: what they show may be lost")
    if unusable:
        lines.append(f"{counted(unusable, 'file')} left out, listed in look.json")
    return lines

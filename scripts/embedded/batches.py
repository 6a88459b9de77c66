"""Batches of views from all sets, in an order that a run picked up again can find its place in."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import torch
from pack import Packed
from targets import class_offsets, label_mask
from teacher_features import cached_features
from torch import Tensor
from views import SMALLEST_CROP, draw_views, render


@dataclass(frozen=True)
class Batch:
    """Views (B, 3, R, R) in 0..255, what the teacher says of them (B, 1280), labels (B,) among the classes of all
    sets, and which classes are of other sets (B, classes)."""

    images: Tensor
    features: Tensor
    labels: Tensor
    foreign: Tensor


class ViewSource:
    """All sets and their fixed views; `views` and `repeats` per set name, `seeds` of the views and of the order.

    An image of a set with r repeats is visited r times an epoch, each time in the next of its views; r = 0.25 is
    a quarter of the images, drawn anew every epoch. Views are crops of at least the share `smallest` of an image.
    """

    def __init__(
        self,
        sets: list[Packed],
        views: dict[str, int],
        repeats: dict[str, float],
        cache: Path,
        seeds: tuple[int, int],
        device,
        smallest: float,
    ) -> None:
        self.sets, self.views, self.repeats, self.cache = sets, views, repeats, cache
        (self.view_seed, self.seed), self.device, self.smallest = seeds, device, smallest
        self.offsets, self.mask = class_offsets(sets), label_mask(sets)
        self._drawn: dict = {}

    def view(self, number: int, view: int):
        """Boxes and teacher features of one view of one set; the teacher is asked when it was not yet."""
        if (number, view) not in self._drawn:
            data = self.sets[number]
            views = draw_views(data.name, len(data), view, self.view_seed, self.smallest)
            name = f"view{view}" if self.smallest == SMALLEST_CROP else f"view{view}_from{self.smallest}"
            self._drawn[number, view] = views, cached_features(data, views, name, self.cache, self.device)
        return self._drawn[number, view]

    def order(self, epoch: int) -> np.ndarray:
        """The visits (set, view, image) of one epoch, shuffled by seed and epoch: (visits, 3)."""
        visits, draw = [], np.random.default_rng((self.seed, epoch))
        for number, data in enumerate(self.sets):
            repeats = self.repeats.get(data.name, 1)
            for repeat in range(ceil(repeats)):
                view = (epoch * ceil(repeats) + repeat) % self.views.get(data.name, 1)
                self.view(number, view)  # before the epoch begins, so that its time is not the training's
                images = draw.permutation(len(data))[: round(len(data) * min(1.0, repeats - repeat))]
                visits.append(np.stack([np.full_like(images, number), np.full_like(images, view), images], 1))
        visits = np.concatenate(visits)
        return visits[draw.permutation(len(visits))]

    def batch(self, visits: np.ndarray, size: int) -> Batch:
        """The batch of some visits, rendered at `size` px; images of one view of one set lie together."""
        parts = []
        for number, view in np.unique(visits[:, :2], axis=0):
            chosen = np.sort(visits[(visits[:, 0] == number) & (visits[:, 1] == view), 2])
            data, (boxes, features) = self.sets[number], self.view(number, view)
            images = render(
                torch.from_numpy(data.pixels[chosen]).to(self.device), boxes[torch.from_numpy(chosen)], size
            )
            labels = torch.from_numpy(data.labels[chosen]) + self.offsets[number]
            said = torch.from_numpy(features[chosen].astype(np.float32))
            parts.append((images, said, labels, self.mask[number].expand(len(chosen), -1)))
        return Batch(*(torch.cat(each).to(self.device) for each in zip(*parts)))

    def batches(self, epoch: int, size: int, batch_size: int, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `first` on; the last, smaller one is left out."""
        order = self.order(epoch)
        for start in range(first * batch_size, len(order) - batch_size + 1, batch_size):
            yield self.batch(order[start : start + batch_size], size)

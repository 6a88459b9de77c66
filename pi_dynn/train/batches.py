"""Batches in an order that depends only on the seed and the epoch.

The order of the samples and the random numbers of their augmentation do not depend on the number of workers or
processes, so an interrupted run can be resumed bit for bit from any epoch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pi_dynn.errors import InputError
from pi_dynn.train.processes import ALONE, Processes


def derived_seed(*parts: int) -> int:
    """A seed below 2**63, hashed from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1


class Batches(Protocol):
    """The protocol of batches for the engine."""

    steps: int  # batches of one epoch
    samples: int  # of one batch, over all processes

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        """The batches of an epoch, those of this process."""
        ...


@dataclass(frozen=True)
class Order:
    """The order of an epoch, a permutation.

    Every batch is divided into one share per process; an incomplete last batch is left out.
    """

    size: int
    batch_size: int
    seed: int
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        """Raises: InputError for a batch the processes cannot share evenly, or no sample."""
        if self.size < 1:
            raise InputError("there is no image to train on")
        if self.samples % self.processes.world:
            raise InputError(
                f"a batch of {self.samples} cannot be shared by {self.processes.world} processes: "
                f"give a --batch-size that is a multiple of {self.processes.world}"
            )

    @property
    def samples(self) -> int:
        """Samples of a batch, over all processes: fewer than asked for where there are no more."""
        return min(self.batch_size, self.size - self.size % self.processes.world) or self.batch_size

    @property
    def steps(self) -> int:
        """Batches in an epoch; at least one."""
        return max(1, self.size // self.samples)

    def batches(self, epoch: int) -> list[list[int]]:
        """Indices of this process's share of every batch."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, epoch, 0))
        order = torch.randperm(self.size, generator=generator)
        share, rank = self.samples // self.processes.world, self.processes.rank
        starts = range(rank * share, self.steps * self.samples, self.samples)
        return [order[start : start + share].tolist() for start in starts]


class TensorBatches:
    """Batches of tensors in memory, indexed along their first axis."""

    def __init__(self, tensors: tuple[Tensor, ...], order: Order) -> None:
        self.tensors, self.order = tensors, order
        self.steps, self.samples = order.steps, order.samples

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        for indices in self.order.batches(epoch):
            yield tuple(tensor[indices] for tensor in self.tensors)


class _Seeded(Dataset):
    """A dataset indexed by (index, seed): its random transforms depend on the seed alone."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Any:
        index, seed = key
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.dataset[index]


class _Keys:
    """The (index, seed) pairs of every batch of the epoch it was last set to."""

    def __init__(self, order: Order) -> None:
        self.order, self.epoch = order, 0

    def __len__(self) -> int:
        return self.order.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rank, share = self.order.processes.rank, self.order.samples // self.order.processes.world
        base = derived_seed(self.order.seed, self.epoch, 1) >> 1
        for step, indices in enumerate(self.order.batches(self.epoch)):
            place = step * self.order.samples + rank * share
            yield [(index, base + place + i) for i, index in enumerate(indices)]


class LoadedBatches:
    """Batches of a dataset, loaded and augmented by `workers` background processes (0: by this one)."""

    def __init__(self, dataset: Dataset, order: Order, workers: int, pin: bool = False) -> None:
        self.order = order
        self.steps, self.samples = order.steps, order.samples
        self._keys = _Keys(order)
        self._loader = DataLoader(
            _Seeded(dataset),
            batch_sampler=self._keys,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin,
            # The loader draws a seed for its workers that nothing here uses: keep it off the global generator.
            generator=torch.Generator(),
        )

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        self._keys.epoch = epoch
        return iter(self._loader)

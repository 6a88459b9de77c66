"""Accuracy, exits and cost of a bundle on labelled images, from one pass through every exit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pi_dynn.calibrate.outcomes import exit_table, leave_at, mean_cost
from pi_dynn.calibrate.reject import Rejection, exit_similarities
from pi_dynn.data.folders import ImageFolder
from pi_dynn.data.prefetch import prefetch
from pi_dynn.data.preprocess import turned_and_flipped
from pi_dynn.errors import DatasetError, InputError
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.manifest import Manifest
from pi_dynn.runtime.session import Session

Alter = Callable[[np.ndarray, int], np.ndarray]
"""From the uint8 pixels (size, size, 3) of an image and its number to other pixels."""
Outputs = tuple[np.ndarray, np.ndarray]
"""Of one image in V views: logits (V, K, classes) and scores (V, K)."""


@dataclass(frozen=True)
class ExitOutputs:
    """The outputs of every exit on labelled images: logits (K, N, classes), scores (K, N), labels (N,).

    `numbers` (N,) are the places of the images in their data set; None for outputs of no data set.
    `groups` (N,) numbers the photograph that each image is a view of; None if there is one view each. `among` are the
    classes that an answer may have, for data with a subset of the network's classes; None for all.
    """

    logits: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    failed: list[InputError]
    groups: np.ndarray | None = None
    among: list[int] | None = None
    numbers: np.ndarray | None = None

    @property
    def places(self) -> np.ndarray:
        """The place (N,) of each image in its data set; outputs of no data set count as read one by one."""
        return np.arange(len(self.labels)) if self.numbers is None else self.numbers

    @property
    def right(self) -> np.ndarray:
        """Whether each exit is right about each image, (K, N)."""
        return self.answerable(self.logits).argmax(-1) == self.labels

    def answerable(self, logits: np.ndarray) -> np.ndarray:
        """Logits (..., classes), with minus infinity for classes that are not among the data's."""
        if self.among is None:
            return logits
        excluded = np.ones(logits.shape[-1], dtype=bool)
        excluded[self.among] = False
        return np.where(excluded, -np.inf, logits)


@runtime_checkable
class OutputStream(Protocol):
    """A remote source of the outputs of all exits, such as a cluster."""

    bundle: Bundle
    manifest: Manifest

    @property
    def engine(self) -> str:
        """The engine, or the engines, that compute the outputs."""
        ...

    def stream_outputs(
        self, data: ImageFolder, alter: Alter | None = None, all_views: bool = False
    ) -> Iterator[tuple[int, Outputs | InputError]]:
        """As the function `stream_outputs`."""
        ...


def exit_outputs(session: Session, x: Tensor, all_views: bool = False) -> Outputs:
    """The outputs of all exits for the input (3, H, W) of one image, or for its eight rotated and flipped views."""
    views = turned_and_flipped(x.unsqueeze(0)) if all_views else x.unsqueeze(0)
    outputs = [session.forward_scored(view) for view in views.split(1)]
    logits, scores = (np.stack([torch.cat(exits).numpy() for exits in kind]) for kind in zip(*outputs, strict=True))
    return logits, scores


def stream_outputs(
    session: Session, data: ImageFolder, alter: Alter | None = None, all_views: bool = False
) -> Iterator[tuple[int, Outputs | InputError]]:
    """The number of each image with the outputs of all exits, or the error; one image at a time, as on the device."""

    def load(i: int) -> Tensor:
        if alter is None:
            return session.preprocess(data.source(i))
        return session.preprocess.tensor(alter(session.preprocess.pixels(data.picture(i)), i))

    for i, x in prefetch(((i, i) for i in range(len(data))), load):
        yield i, x if isinstance(x, InputError) else exit_outputs(session, x, all_views)


def collect_outputs(
    session: "Session | OutputStream",
    data: ImageFolder,
    on_image: Callable[[], None] = lambda: None,
    *,
    alter: Alter | None = None,
    all_views: bool = False,
    only_present: bool = False,
) -> ExitOutputs:
    """The outputs of all exits on `data`, computed here or by an OutputStream; `failed` lists undecodable files.

    `alter` changes the pixels of the network's input; `all_views` uses the eight rotated and flipped views of every
    image; `only_present` restricts answers to the classes of `data`.

    Raises: DatasetError if a class folder is none of the bundle's labels, or no image can be read.
    """
    unknown = sorted(set(data.classes) - set(session.manifest.labels))
    if unknown:
        raise DatasetError(
            f"{data.root}: class {unknown[0]!r} is not one the bundle knows "
            f"({', '.join(session.manifest.labels[:4])}, ...); folders must be named after its labels"
        )
    if not len(data):
        raise DatasetError(f"{data.root}: this part of it holds no images; choose another")
    index = [session.manifest.labels.index(name) for name in data.classes]
    logits, scores, labels, numbers, failed = [], [], [], [], []
    stream = session.stream_outputs if isinstance(session, OutputStream) else partial(stream_outputs, session)
    for i, outputs in stream(data, alter, all_views):
        if isinstance(outputs, InputError):
            failed.append(outputs)
        else:
            logits += list(outputs[0])
            scores += list(outputs[1])
            labels += [index[data.labels[i]]] * len(outputs[0])
            numbers += [i] * len(outputs[0])
        on_image()
    if not labels:
        raise DatasetError(f"{data.root}: none of its {len(data)} images can be read; first: {failed[0]}")
    return ExitOutputs(
        np.stack(logits, 1),
        np.stack(scores, 1),
        np.asarray(labels),
        failed,
        np.asarray(numbers) if all_views else None,
        sorted(index) if only_present else None,
        np.asarray(numbers),
    )


def evaluate(
    session: "Session | OutputStream", data: ImageFolder, outputs: ExitOutputs, thresholds: list[float]
) -> Evaluation:
    """Accuracy, loss, exit table and mean multiply-adds at `thresholds` from collected outputs."""
    exits = leave_at(outputs.scores, thresholds)
    samples = np.arange(len(exits))
    answered = torch.from_numpy(outputs.answerable(outputs.logits[exits, samples]))
    labels = torch.from_numpy(outputs.labels)
    five = answered.topk(min(5, answered.shape[1])).indices
    macs, rejected = session.manifest.macs, rejected_samples(outputs, exits, session.manifest.rejection)
    return Evaluation(
        dataset=str(data.root),
        images=len(exits),
        failed=len(outputs.failed),
        acc1=float(outputs.right[exits, samples].mean()),
        acc5=float((five == labels[:, None]).any(1).float().mean()),
        loss=float(torch.nn.functional.cross_entropy(answered, labels)),
        full_depth_acc1=float(outputs.right[-1].mean()),
        mean_macs=mean_cost(exits, macs),
        full_depth_macs=macs[-1],
        exits=exit_table(exits, outputs.right, session.manifest.blocks, macs),
        thresholds=thresholds,
        engine=session.engine,
        precision=session.manifest.precision,
        bundle=session.bundle.sha256,
        rejected=None if rejected is None else float(rejected.mean()),
    )


def rejected_samples(
    outputs: ExitOutputs, exits: NDArray[np.int64], rejection: Rejection | None
) -> NDArray[np.bool_] | None:
    """Which samples (N,) that leave at `exits` (N,) are "none of these"; None where nothing is rejected."""
    if rejection is None:
        return None
    rejected: NDArray[np.bool_] = exit_similarities(outputs.logits, exits, rejection.class_means) < rejection.limit
    return rejected

"""Accuracy, exits and cost of a bundle on labelled images, from one pass through every exit."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from pi_dynn.calibrate.exit_table import exit_table, leave_at, mean_cost
from pi_dynn.data.folders import ImageFolder
from pi_dynn.errors import DatasetError, InputError
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.runtime.session import Alter, Session


@dataclass(frozen=True)
class ExitOutputs:
    """Every exit's output on labelled images: logits (K, N, classes), scores (K, N), labels (N,).

    `groups` (N,) numbers the photograph each image is a view of; None where each is its own. `among` are the classes
    an answer may be of, for data of a few of the network's classes; None for all.
    """

    logits: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    failed: list[InputError]
    groups: np.ndarray | None = None
    among: list[int] | None = None

    @property
    def right(self) -> np.ndarray:
        """Whether each exit is right about each image, (K, N)."""
        return self.answerable(self.logits).argmax(-1) == self.labels

    def answerable(self, logits: np.ndarray) -> np.ndarray:
        """Logits (..., classes), without hope for classes that no image is of."""
        if self.among is None:
            return logits
        hopeless = np.ones(logits.shape[-1], dtype=bool)
        hopeless[self.among] = False
        return np.where(hopeless, -np.inf, logits)


def collect_outputs(
    session: Session,
    data: ImageFolder,
    on_image: Callable[[], None] = lambda: None,
    *,
    alter: Alter | None = None,
    all_views: bool = False,
    only_present: bool = False,
) -> ExitOutputs:
    """Run all exits over `data`. Files that do not decode are set aside.

    `alter` changes the pixels that the network sees; `all_views` answers the eight turned and flipped views of every
    image; `only_present` answers among the classes of `data` only.

    Raises: DatasetError if a class folder is none of the bundle's labels, or no image can be read.
    """
    unknown = sorted(set(data.classes) - set(session.manifest.labels))
    if unknown:
        raise DatasetError(
            f"{data.root}: class {unknown[0]!r} is not one the bundle knows "
            f"({', '.join(session.manifest.labels[:4])}, ...); folders must be named after its labels"
        )
    index = [session.manifest.labels.index(name) for name in data.classes]
    logits, scores, labels, groups, failed = [], [], [], [], []
    for i, outputs in session.stream_outputs(data, alter, all_views):
        if isinstance(outputs, InputError):
            failed.append(outputs)
        else:
            logits += list(outputs[0])
            scores += list(outputs[1])
            labels += [index[data.labels[i]]] * len(outputs[0])
            groups += [i] * len(outputs[0])
        on_image()
    if not labels:
        raise DatasetError(f"{data.root}: none of its {len(data)} images can be read; first: {failed[0]}")
    return ExitOutputs(
        np.stack(logits, 1),
        np.stack(scores, 1),
        np.asarray(labels),
        failed,
        np.asarray(groups) if all_views else None,
        sorted(index) if only_present else None,
    )


def evaluate(session: Session, data: ImageFolder, outputs: ExitOutputs, thresholds: list[float]) -> Evaluation:
    """Accuracy, loss, exit table and mean multiply-adds at `thresholds` from collected outputs."""
    exits = leave_at(outputs.scores, thresholds)
    samples = np.arange(len(exits))
    answered = torch.from_numpy(outputs.answerable(outputs.logits[exits, samples]))
    labels = torch.from_numpy(outputs.labels)
    five = answered.topk(min(5, answered.shape[1])).indices
    macs = session.manifest.macs
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
    )

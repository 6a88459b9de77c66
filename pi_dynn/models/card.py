"""Weights with a card that describes them: safetensors, with the card in its metadata.

`load_checkpoint` and `pi-dynn export` read these files like any other checkpoint.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import CheckpointError
from pi_dynn.files import write_atomically
from pi_dynn.models.checkpoint_file import CARD, DIGEST, EXIT_BLOCKS, safetensors_digest
from pi_dynn.records import Record


@dataclass(frozen=True)
class Card(Record):
    """How to build the network, its labels and preprocessing, and the manifests of its training stages."""

    KIND = "card"

    model: str
    arguments: dict[str, Any]
    classes: list[str]
    preprocess: Preprocess
    stages: list[dict[str, Any]] = field(default_factory=list)


def save_weights(path: str | Path, state: Mapping[str, Tensor], card: Card) -> None:
    """Write weights and card to `path`, atomically."""
    metadata = {CARD: json.dumps(card.to_dict())}
    exits = card.arguments.get("exits")
    if isinstance(exits, list):
        metadata[EXIT_BLOCKS] = json.dumps(exits)
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    # The hash is part of the card: safetensors writes several entries of metadata in any order.
    metadata[CARD] = json.dumps(card.to_dict() | {DIGEST: safetensors_digest(save(tensors, metadata))})
    data = save(tensors, metadata)
    write_atomically(path, lambda stream: stream.write(data))


def read_card(path: str | Path) -> Card | None:
    """The card in a weights file; None for a file without one.

    Raises: CheckpointError for a card that cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(CARD)
    except (SafetensorError, OSError):
        return None  # a PyTorch file, or none: loading the weights reports that
    if text is None:
        return None
    try:
        return Card.from_dict(json.loads(text))
    except ValueError as error:
        raise CheckpointError(f"the checkpoint {str(path)!r} has a damaged card ({error}): train it again") from error

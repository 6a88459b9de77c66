"""The folder of one run: its manifest, its log, its weights, and the state to resume from.

`run.json` is the manifest (network, images, hyperparameters, versions), which a resumed run must match;
`log.csv` has a row per epoch; `best.safetensors` holds the weights of the best epoch by the held-out images,
`last.safetensors` those of the last one; `state.pt` is everything a resumed run needs.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pi_dynn.errors import CheckpointError, InputError
from pi_dynn.files import write_atomically, write_text
from pi_dynn.models.card import Card, save_weights
from pi_dynn.models.checkpoint_file import load_tensors

STATE_FORMAT = 1
COMPARED = ("stage", "model", "arguments", "recipe", "options", "data", "init")  # what a resumed run must agree on


class RunFolder:
    """The files of one run below `path`, each written atomically."""

    def __init__(self, path: str | Path, card: Card) -> None:
        self.path, self.card = Path(path), card

    def begin(self, manifest: dict, resume: bool) -> None:
        """Write the manifest, or check that a resumed run was started with the same one.

        Raises: InputError if there is a run in the folder and `resume` is not asked for, or another run.
        """
        file = self.path / "run.json"
        if not file.exists():
            write_text(file, json.dumps({"kind": "training run", "schema": 1} | manifest, indent=1) + "\n")
            return
        if not resume:
            raise InputError(f"{self.path} holds a run already: go on with --resume, or give another --out")
        try:
            started = json.loads(file.read_text())
        except ValueError as error:
            raise CheckpointError(f"{file}: damaged ({error}); start anew in another --out") from error
        manifest = json.loads(json.dumps(manifest))  # tuples to lists, as in the file
        for key in COMPARED:
            if started.get(key) != manifest.get(key):
                raise InputError(
                    f"{self.path}: the run was started with {_difference(key, started.get(key), manifest.get(key))}: "
                    "resume it with the same options, or give another --out"
                )

    def write_log(self, history: Sequence[Mapping[str, float | int]]) -> None:
        """Replace log.csv by the rows of all epochs so far."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in history)
        write_text(self.path / "log.csv", text.getvalue())

    def save_weights(self, name: str, state: Mapping[str, Tensor]) -> Path:
        """Write a weights file with the card of the run."""
        path = self.path / f"{name}.safetensors"
        save_weights(path, state, self.card)
        return path

    def save_state(self, state: dict) -> None:
        """Replace the state to resume from."""
        write_atomically(self.path / "state.pt", lambda stream: torch.save({"format": STATE_FORMAT, **state}, stream))

    def load_state(self) -> dict | None:
        """The last saved state; None before the end of the first epoch.

        Raises: CheckpointError for a file that is not what `save_state` writes.
        """
        path = self.path / "state.pt"
        if not path.exists():
            return None
        try:
            state = load_tensors(path)
        except Exception as error:  # a damaged file can fail in any way
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise CheckpointError(f"{path}: damaged ({reason}); delete it to start anew") from error
        if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
            raise CheckpointError(f"{path}: written by another version of pi_dynn; start anew in another --out")
        return state


def _difference(key: str, started: object, now: object) -> str:
    """The difference of two entries of a manifest, for messages."""
    if isinstance(started, dict) and isinstance(now, dict):
        parts = [name for name in {**started, **now} if started.get(name) != now.get(name)]
        return ", ".join(f"{key}.{name}={started.get(name)!r}, not {now.get(name)!r}" for name in parts)
    return f"{key}={started!r}, not {now!r}"

"""Checkpoint files read as data: tensors by name, never code.

A damaged file is refused, not loaded with other weights.
"""

import argparse
import hashlib
import io
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pi_dynn.errors import CheckpointError

WRAPPERS = ("model", "net", "state_dict")  # GFNet and DeiT; JEI-DNN; Lightning and many others
PREFIXES = ("module.", "_orig_mod.")  # DataParallel; torch.compile
EXIT_BLOCKS = "exit_blocks"  # optional entry beside the weights, or in the metadata of a safetensors file
CARD = "pi_dynn"  # in the metadata of a safetensors file
DIGEST = "sha256"  # in the card: the hash of everything else in the file


@dataclass(frozen=True)
class CheckpointFile:
    """The weights in a file, and the blocks its exits follow if the file contains them."""

    path: Path
    state: dict[str, Tensor]
    exit_blocks: tuple[int, ...] | None


def read_checkpoint(path: str | Path) -> CheckpointFile:
    """The state dict in a PyTorch or safetensors file, out of its wrapper and without wrapper prefixes.

    Raises: CheckpointError for a missing, damaged or unsafe file, and for one without a state dict.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(9)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint at {str(path)!r}: check the path") from error
    except OSError as error:
        raise CheckpointError(f"the checkpoint {str(path)!r} cannot be read: {error.strerror}") from error
    if not start:
        raise CheckpointError(f"the checkpoint {str(path)!r} is empty: copy or download it again")
    if start[8:] == b"{":  # a length in 8 bytes, then a JSON header
        state, blocks = _read_safetensors(path)
    else:
        content = _read_pickle(path)
        state = _state_dict_in(content, path)
        blocks = content.get(EXIT_BLOCKS) if isinstance(content, Mapping) else None
    return CheckpointFile(path, _without_prefixes(state), _as_blocks(blocks, path))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], object]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            expected = json.loads(metadata.get(CARD, "{}")).get(DIGEST)
            if expected not in (None, safetensors_digest(path.read_bytes())):
                raise ValueError("it is not what its hash says")
            return {key: file.get_tensor(key) for key in file.keys()}, json.loads(metadata.get(EXIT_BLOCKS, "null"))  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error


def safetensors_digest(data: bytes) -> str:
    """sha256 in hexadecimal of a safetensors file: its tensors, and its header without the hash itself."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = header.pop("__metadata__", {})
    card = json.loads(metadata.pop(CARD, "{}"))
    card.pop(DIGEST, None)
    text = json.dumps([header, metadata, card], sort_keys=True)
    return hashlib.sha256(text.encode() + data[start:]).hexdigest()


def load_tensors(path: Path) -> Any:
    """What `torch.save` wrote to `path`, if it is plain data; any exception for another or a damaged file."""
    with path.open("rb") as stream:
        archive = stream.read(2) == b"PK" or zipfile.is_zipfile(path)
    source = io.BytesIO(_intact_archive(path)) if archive else path
    return torch.load(source, map_location="cpu", weights_only=True)


def _intact_archive(path: Path) -> bytes:
    """The zip archive at `path`, made anew of its files; their checksums, which torch ignores, have to be right."""
    target = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(target, "w") as copy:
        for name in archive.namelist():
            copy.writestr(zipfile.ZipInfo(name), archive.read(name))
    return target.getvalue()


def _read_pickle(path: Path) -> object:
    try:
        # Published files carry their command line as a Namespace, which holds plain values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns about here raises an error below
            return load_tensors(path)
    except Exception as error:  # a damaged pickle can fail in any way
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise CheckpointError(
                f"the checkpoint {str(path)!r} is refused: it would run {refused[1]}, and only tensors are loaded; "
                "save it anew as torch.save({'model': model.state_dict()}, path)"
            ) from error
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(". ")
    if "TorchScript" in reason:
        reason = "a TorchScript archive, not a training form's weights"
    elif reason.isdigit():  # the first byte, of a file that is not written by torch
        reason = "neither of PyTorch nor safetensors"
    elif "weights" in reason.lower():  # torch would advise to load it unsafely
        reason = "no plain file of tensors"
    return CheckpointError(f"the checkpoint {str(path)!r} is damaged or of another kind ({reason}): get it again")


def _state_dict_in(content: object, path: Path) -> Mapping[str, Tensor]:
    """The mapping of names to tensors in what a file holds, bare or under one of the usual names."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"the checkpoint {str(path)!r} holds a {type(content).__name__}, not a state dict")
    wrapper = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
    state = content if wrapper is None else content[wrapper]
    strangers = [str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strangers or not state:
        entries = f"entries that are no tensors ({', '.join(strangers[:5])})" if strangers else "no entries"
        raise CheckpointError(
            f"the checkpoint {str(path)!r} has no state dict, bare or under {', '.join(WRAPPERS)}: it has {entries}"
        )
    return state


def _without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def _as_blocks(value: object, path: Path) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(type(block) is int for block in value):
        raise CheckpointError(f"the checkpoint {str(path)!r} says {EXIT_BLOCKS}={value!r}, not a list of block indices")
    return tuple(value)

"""What was found out on this machine, kept in the user's cache folder: all of it can be found out again."""

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import platformdirs
import torch

from pi_dynn.files import write_text


class MachineCache:
    """Plain values by what they are of, on this machine with this torch. Delete the file to have them made again."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name

    @property
    def path(self) -> Path:
        """The file the values are kept in."""
        return Path(platformdirs.user_cache_dir("pi_dynn", appauthor=False)) / self.file_name

    def get(self, *of: object) -> Any:
        """The value kept; None where there is none, or the file is damaged."""
        return self._read().get(_key(of))

    def keep(self, value: object, *of: object) -> None:
        """Put a value in place of the one before. Raises: OSError, PiDynnError where it cannot be written."""
        write_text(self.path, json.dumps(self._read() | {_key(of): value}, indent=1) + "\n")

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}


def _key(of: tuple[object, ...]) -> str:
    parts = (*map(str, of), torch.__version__, platform.machine(), platform.node())
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]

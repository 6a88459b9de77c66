"""A cache of measurements on this machine, in the user's cache folder."""

import hashlib
import json
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs

from pi_dynn.errors import PiDynnError
from pi_dynn.files import write_text
from pi_dynn.torch_build import torch_version


class MachineCache:
    """Plain values by keys, for this machine and this torch. Delete the file to have them computed again."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name

    @property
    def path(self) -> Path:
        """The file of the cache."""
        return Path(platformdirs.user_cache_dir("pi_dynn", appauthor=False)) / self.file_name

    def get(self, *of: object) -> Any:
        """The value of the key `of`; None if there is none, or the file is damaged."""
        return self._read().get(_key(of))

    def keep(self, value: object, *of: object) -> None:
        """Set the value of the key `of`. Raises: OSError, PiDynnError if it cannot be written."""
        write_text(self.path, json.dumps(self._read() | {_key(of): value}, indent=1) + "\n")

    def keep_if_writable(self, value: object, *of: object) -> None:
        """The same without an error: with a read-only home the value is computed again next time."""
        with suppress(OSError, PiDynnError):
            self.keep(value, *of)

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}


CHOICES = MachineCache("choices.json")  # of engines and of threads


def _key(of: tuple[object, ...]) -> str:
    parts = (*map(str, of), torch_version(), platform.machine(), platform.node())
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]

"""Pictures whose answers were unsure, saved for later labelling within a quota."""

import os
import re
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from pi_dynn.classify.text import told_label
from pi_dynn.data.frames import Frame
from pi_dynn.errors import InputError
from pi_dynn.files import write_atomically
from pi_dynn.records import Prediction

PAUSE_S = 10.0  # between two pictures; a scene that stays unsure would fill the quota with one picture
JPEG_QUALITY = 92


class UnsurePictures:
    """A folder for pictures whose answer is below `below` in probability, or is "none of these".

    Nothing in the folder is ever deleted or replaced: where another picture would exceed `quota_bytes`, or the disk is
    full, it is not saved, which the callback `say` reports once, and that goes for anything else that is wrong there.
    Take pictures out, and there is room again. `now` gives the date that begins a file's name.

    Attributes: saved, lost (unsure, but not saved).

    Raises: InputError if the folder cannot be made or written to.
    """

    def __init__(
        self,
        folder: Path,
        quota_bytes: int,
        now: Callable[[], datetime],
        below: float = 0.5,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._folder, self._quota_bytes, self._now, self._below, self._say = folder, quota_bytes, now, below, say
        self.saved = self.lost = 0
        self._next_ns: int | None = None
        self._complained = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
        if not os.access(folder, os.W_OK):
            raise InputError(f"{folder}: not writable by this user; choose another folder")

    def offer(self, frame: Frame, answer: Prediction) -> None:
        """Save the picture of a frame if its answer is unsure and the last picture was some time ago. Never fails."""
        if answer.accepted and answer.probability >= self._below or isinstance(frame.image, InputError):
            return
        if self._next_ns is not None and frame.taken_ns < self._next_ns:
            return
        self._next_ns = frame.taken_ns + round(PAUSE_S * 1e9)
        try:
            self._save(frame.image, frame.number, answer)
        except OSError as error:
            self.lost += 1
            if not self._complained:
                self._say(f"{self._folder}: unsure pictures are not saved for now ({error.strerror or error})")
            self._complained = True
        else:
            self.saved += 1
            self._complained = False

    def _save(self, image: np.ndarray | Path, number: int, answer: Prediction) -> None:
        """Write a picture. Raises: OSError, also for one beyond the quota."""
        if isinstance(image, Path):
            content, suffix = image.read_bytes(), image.suffix
        else:
            stream = BytesIO()
            Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY)
            content, suffix = stream.getvalue(), ".jpg"
        used = sum(entry.stat().st_size for entry in os.scandir(self._folder) if entry.is_file())
        if used + len(content) > self._quota_bytes:
            raise OSError(f"the quota of {self._quota_bytes / 1e6:g} MB is used up; take pictures out")
        label = re.sub(r"\W+", "_", told_label(answer))[:40]
        name = f"{self._now():%Y%m%dT%H%M%S}_{number}_{label}_{answer.probability:.0%}".rstrip("%")
        path = self._folder / f"{name}{suffix}"
        if path.exists():  # the calendar was set back; what is there stays
            raise FileExistsError(f"{path.name} exists already")
        write_atomically(path, lambda stream: stream.write(content))

"""A feed of the image files written to a folder."""

import os
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pi_dynn.clock import Clock
from pi_dynn.data.decode import SUFFIXES
from pi_dynn.data.frames import FrameFeed
from pi_dynn.errors import InputError, need_extra

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent


SETTLED_S = 1.0  # a file in a new folder that has not changed for so long is not being written any more


class FolderFeed(FrameFeed):
    """A feed of image files that are closed by their writer, or moved in, anywhere below `folder`.

    A file counts once the kernel reports that its writer has closed it. A new folder is watched a moment after it is
    made: a file that was closed in it before counts once it has been as it is for `SETTLED_S` seconds. Hidden files,
    files without an image's suffix, and files that were there before are ignored.

    Raises: InputError without watchdog, or if the kernel cannot watch the folder.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(str(folder), clock)
        with need_extra("watch", "watching a folder"):
            from watchdog.events import (
                DirCreatedEvent,
                DirDeletedEvent,
                DirMovedEvent,
                FileClosedEvent,
                FileMovedEvent,
                FileSystemEventHandler,
            )
            from watchdog.observers.inotify import InotifyObserver

        class Handler(FileSystemEventHandler):
            def on_closed(_, event: "FileSystemEvent") -> None:
                self._finished(os.fsdecode(event.src_path))

            def on_created(_, event: "FileSystemEvent") -> None:
                self._look_into(Path(os.fsdecode(event.src_path)))

            def on_moved(_, event: "FileSystemEvent") -> None:
                moved_from_elsewhere = not event.src_path  # its files have no events of their own
                if not event.is_directory:
                    self._finished(os.fsdecode(event.dest_path))
                elif moved_from_elsewhere:
                    self._look_into(Path(os.fsdecode(event.dest_path)))

            def on_deleted(_, event: "FileSystemEvent") -> None:
                self._deleted(os.fsdecode(event.src_path))

        # A folder made in a new one is seen twice when both are made at once, and watched once all the same.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        # Without full events a file moved in from elsewhere looks like a new file still being written.
        self._observer = InotifyObserver(generate_full_events=True)
        kinds: list[type[FileSystemEvent]] = [
            FileClosedEvent,
            FileMovedEvent,
            DirCreatedEvent,
            DirMovedEvent,
            DirDeletedEvent,
        ]
        self._unsettled: dict[str, tuple[int, int]] = {}  # files in new folders: size, and time of the last change
        self._settling = threading.Lock()
        try:
            self._observer.schedule(Handler(), str(folder), recursive=True, event_filter=kinds)
            self._observer.start()
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be watched ({error.strerror}); see fs.inotify.max_user_watches in sysctl"
            ) from error

    def close(self) -> None:
        self._observer.stop()
        self._observer.join(timeout=2.0)

    def _finished(self, path: str) -> None:
        file = Path(path) if path else None  # a file moved out of the folder has no path any more
        if file is not None and _is_image(file):
            with self._settling:
                self._unsettled.pop(path, None)
            self._arrived(path, lambda: file, keep=True)

    def _look_into(self, folder: Path) -> None:
        """Have the files in a new folder counted that were closed before it was watched."""
        try:
            found = {str(file): _state(file) for file in folder.iterdir() if _is_image(file)}
        except OSError:  # gone again
            return
        if found:
            with self._settling:
                self._unsettled |= found
            timer = threading.Timer(SETTLED_S, self._settle, [found])
            timer.daemon = True
            timer.start()

    def _settle(self, found: dict[str, tuple[int, int]]) -> None:
        """Count the files that have not changed; the others have been counted, or will be when they are closed."""
        for path, state in found.items():
            file = Path(path)
            with self._settling:
                waits = self._unsettled.pop(path, None) is not None
            if waits and file.exists() and _state(file) == state:
                self._finished(path)

    def _deleted(self, path: str) -> None:
        if path == self.name:
            self._end(InputError(f"{path}: the folder is gone; make it again and start anew"))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _state(file: Path) -> tuple[int, int]:
    """Size in bytes, and time of the last change; zeros for a file that is gone."""
    try:
        status = file.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
